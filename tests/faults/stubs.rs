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

async fn serve(answer: impl Fn(&[u8]) -> Vec<u8> + Clone + Send + 'static) -> io::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(converse(stream, answer.clone()));
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
