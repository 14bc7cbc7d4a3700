//! A follower whose data is deleted, while the server runs and while it is stopped, is rebuilt with nobody's help.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::program::{CONFIGURATION, Place, Server};

const RECORDS: usize = 1500;
const REBUILT_WITHIN: Duration = Duration::from_secs(60);
/// What each follower of the configuration keeps, below the data folder.
const DATA: [&[&str]; 3] =
    [&["search/product"], &["archive/product"], &["copy.db", "copy.db-wal", "copy.db-shm"]];

#[test]
fn a_follower_without_its_data_is_rebuilt() {
    let place = Place::new(CONFIGURATION);
    let lines: String = (0..RECORDS)
        .map(|n| format!("{{\"id\":\"p{n}\",\"name\":\"ice {n}\",\"stock\":{n}}}\n"))
        .collect();
    std::fs::write(place.folder.path().join("products.jsonl"), lines)
        .expect("the records are written");
    let imported = place.run(&["import", "product", "products.jsonl", "--data", "data"]);
    assert!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));
    let server = place.serve();
    agrees(&place, &server);
    for paths in DATA {
        delete(&place.folder.path().join("data"), paths);
        agrees(&place, &server);
    }
    server.kill();
    for paths in DATA {
        delete(&place.folder.path().join("data"), paths);
    }
    agrees(&place, &place.serve());
}

fn delete(data: &Path, paths: &[&str]) {
    for path in paths.iter().map(|p| data.join(p)) {
        if path.is_dir() {
            // At one instant: what the server writes there meanwhile is none of what was there.
            let gone = data.join("gone");
            std::fs::rename(&path, &gone).expect("the folder can be moved");
            std::fs::remove_dir_all(&gone).expect("the folder can be deleted");
        } else if path.exists() {
            std::fs::remove_file(&path).expect("the file can be deleted");
        }
    }
}

/// Waits until verification finds every follower equal to the truth.
fn agrees(place: &Place, server: &Server) {
    let deadline = Instant::now() + REBUILT_WITHIN;
    loop {
        let verified = place.run(&["verify", "--deep", "--url", &server.base, "--json"]);
        if verified.status.success() {
            return;
        }
        let said = String::from_utf8_lossy(&verified.stdout);
        assert!(
            Instant::now() < deadline,
            "not rebuilt: {said}{}",
            String::from_utf8_lossy(&verified.stderr)
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}
