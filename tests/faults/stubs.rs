//! Servers that say that they are of an old version, and can do nothing else. They last as long as the runtime.

use std::io;
use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A Redis of this version, without TLS and password; answers its port.
pub(crate) async fn redis(version: &'static str) -> Result<u16, String> {
    let answer = move |request: &[u8]| {
        let info = format!("# Server\r\nredis_version:{version}\r\nredis_mode:standalone\r\n");
        let text = String::from_utf8_lossy(request).to_ascii_uppercase();
        // Several commands can come at once, each with a name that is a bulk string.
        let commands = text.split('*').filter(|c| !c.is_empty()).map(|command| {
            if command.contains("\r\nINFO\r\n") {
                format!("${}\r\n{info}\r\n", info.len())
            } else if command.contains("\r\nHELLO\r\n") || command.contains("\r\nFUNCTION\r\n") {
                "-ERR unknown command\r\n".to_owned()
            } else {
                "+OK\r\n".to_owned()
            }
        });
        commands.collect::<String>().into_bytes()
    };
    serve(answer).await.map_err(|e| e.to_string())
}

/// An OpenSearch or Elasticsearch of this version, without TLS and password; answers its port.
pub(crate) async fn opensearch(version: &'static str) -> Result<u16, String> {
    let answer = move |_: &[u8]| {
        let body = format!(
            "{{\"name\":\"old\",\"version\":{{\"number\":\"{version}\"}},\"tagline\":\"You Know, for Search\"}}"
        );
        let length = body.len();
        format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}")
            .into_bytes()
    };
    serve(answer).await.map_err(|e| e.to_string())
}

/// A PostgreSQL that lacks the functions of today, without TLS and password; answers its port.
pub(crate) async fn postgres() -> Result<u16, String> {
    const READY: &[u8] = b"Z\0\0\0\x05I";
    let answer = |request: &[u8]| match request.first() {
        // The first message has no letter: it begins with its length.
        Some(0) => [b"R\0\0\0\x08\0\0\0\0", READY].concat(),
        Some(b'X') => Vec::new(),
        _ => {
            let fields =
                b"SERROR\0VERROR\0C42883\0Mfunction pg_current_wal_lsn() does not exist\0\0";
            let length = (fields.len() as u32 + 4).to_be_bytes();
            [b"E", length.as_slice(), fields, READY].concat()
        }
    };
    serve(answer).await.map_err(|e| e.to_string())
}

/// A MariaDB of this version, without TLS and password; answers its port.
pub(crate) async fn mysql(version: &'static str) -> Result<u16, String> {
    // Passwords, databases, today's protocol and result sets, and nothing that would change how results look.
    const CAPABILITIES: u32 = 0x000B_A20B;
    let [low, lower, high, higher] = CAPABILITIES.to_le_bytes();
    let greeting = [
        b"\x0a",
        version.as_bytes(),
        b"\0\x01\0\0\0saltsalt\0",
        &[low, lower, 45, 2, 0, high, higher, 21],
        &[0; 10],
        b"saltsaltsalt\0mysql_native_password\0",
    ];
    let greeting = packet(0, &greeting.concat());
    let answer = move |request: &[u8]| {
        let text = String::from_utf8_lossy(request.get(5..).unwrap_or_default()).to_uppercase();
        match (request.get(3), request.get(4)) {
            (Some(0), Some(1)) => Vec::new(),
            (Some(0), Some(3)) if text.starts_with("SELECT") => row(&text, version),
            (sequence, _) => packet(sequence.unwrap_or(&0) + 1, &[0, 0, 0, 2, 0, 0, 0]),
        }
    };
    serve_after(greeting, answer).await.map_err(|e| e.to_string())
}

/// One row with a value for each thing that is selected.
fn row(selected: &str, version: &str) -> Vec<u8> {
    const END: &[u8] = &[0xFE, 0, 0, 2, 0];
    let counted = |text: &str| [&[text.len() as u8], text.as_bytes()].concat();
    let columns: Vec<&str> = selected.split(',').collect();
    let mut packets = vec![vec![columns.len() as u8]];
    for _ in &columns {
        let names = ["def", "", "", "", "x", ""].map(counted).concat();
        packets.push([names.as_slice(), &[12, 45, 0, 0, 1, 0, 0, 0xFD, 0, 0, 0, 0, 0]].concat());
    }
    packets.push(END.to_vec());
    let value = |column: &&str| counted(if column.contains("VERSION") { version } else { "65536" });
    packets.push(columns.iter().flat_map(value).collect());
    packets.push(END.to_vec());
    (1..).zip(packets).flat_map(|(n, body)| packet(n, &body)).collect()
}

fn packet(sequence: u8, body: &[u8]) -> Vec<u8> {
    let [a, b, c, _] = (body.len() as u32).to_le_bytes();
    [&[a, b, c, sequence], body].concat()
}

async fn serve(answer: impl Fn(&[u8]) -> Vec<u8> + Clone + Send + 'static) -> io::Result<u16> {
    serve_after(Vec::new(), answer).await
}

async fn serve_after(
    greeting: Vec<u8>,
    answer: impl Fn(&[u8]) -> Vec<u8> + Clone + Send + 'static,
) -> io::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            if stream.write_all(&greeting).await.is_ok() {
                tokio::spawn(converse(stream, answer.clone()));
            }
        }
    });
    Ok(port)
}

/// Takes what arrives at once as one request.
async fn converse(mut stream: TcpStream, answer: impl Fn(&[u8]) -> Vec<u8>) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        if stream.write_all(&answer(&buffer[..read])).await.is_err() {
            return;
        }
    }
}
