//! What firmware needs to start a machine over HTTP: a server, and a boot entry that names it.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{HOST, address};

/// A server of one file. It listens until the process ends.
pub struct HttpServer {
    /// The file, as the machine sees it.
    pub url: String,
    sent: Arc<AtomicUsize>,
}

impl HttpServer {
    /// Serves the file at `path` under its own name.
    pub fn start(path: &Path) -> Self {
        let file: Arc<[u8]> = fs::read(path).expect("the file to serve").into();
        let name = path.file_name().expect("a file").to_string_lossy();
        let listener = TcpListener::bind(address()).expect("the port is free");
        let port = listener.local_addr().expect("bound").port();
        let sent = Arc::new(AtomicUsize::new(0));
        let (wanted, count) = (format!("/{name}"), Arc::clone(&sent));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (wanted, file, count) = (wanted.clone(), Arc::clone(&file), Arc::clone(&count));
                std::thread::spawn(move || serve(&stream, &wanted, &file, &count));
            }
        });
        let url = format!("http://{HOST}:{port}/{name}");
        Self { url, sent }
    }

    /// How often all of the file was sent.
    pub fn sent(&self) -> usize {
        self.sent.load(Ordering::SeqCst)
    }
}

/// Answers HEAD and GET on one connection until it ends.
fn serve(stream: &TcpStream, wanted: &str, file: &[u8], sent: &AtomicUsize) {
    let mut lines = BufReader::new(stream).lines();
    while let Some(Ok(request)) = lines.next() {
        while lines
            .next()
            .is_some_and(|line| line.is_ok_and(|line| !line.is_empty()))
        {}
        let mut words = request.split(' ');
        let (method, path) = (words.next(), words.next());
        let found = path == Some(wanted);
        let (status, body) = if found {
            ("200 OK", file)
        } else {
            ("404 Not Found", &[][..])
        };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let mut out = stream;
        if out.write_all(head.as_bytes()).is_err() {
            return;
        }
        if method == Some("GET") {
            if out.write_all(body).is_err() {
                return;
            }
            sent.fetch_add(usize::from(found), Ordering::SeqCst);
        }
    }
}

/// Writes into fresh variables of the firmware that the next boot is from `url`: Boot0000 and BootNext
/// (UEFI 2.10 sections 3.1.3 and 10.3.4.22, in EDK II's store of authenticated variables).
pub fn boot_next(variables: &Path, url: &str) {
    let mut flash = fs::read(variables).expect("variables");
    assert_eq!(&flash[0x28..0x2c], b"_FVH", "no firmware volume");
    let volume_header = usize::from(u16::from_le_bytes([flash[0x30], flash[0x31]]));
    // The store's own header: its GUID, size, format, state and six bytes of nothing.
    let mut at = (volume_header + 28).next_multiple_of(4);
    let empty = flash[at..at + 1024].iter().all(|&byte| byte == 0xff);
    assert!(empty, "the variables are not fresh");

    let mut path = vec![3, 24];
    path.extend((4 + u16::try_from(url.len()).expect("short")).to_le_bytes());
    path.extend(url.as_bytes());
    path.extend([0x7f, 0xff, 4, 0]);
    let mut option = 1_u32.to_le_bytes().to_vec();
    option.extend(u16::try_from(path.len()).expect("short").to_le_bytes());
    option.extend(utf16("HTTP"));
    option.extend(path);
    for (name, value) in [("Boot0000", option), ("BootNext", vec![0, 0])] {
        let name = utf16(name);
        let mut variable = vec![0xaa, 0x55, 0x3f, 0];
        // Kept, and for boot services and the system alike; not authenticated: count, time, key.
        variable.extend(7_u32.to_le_bytes());
        variable.extend([0; 8 + 16 + 4]);
        variable.extend(u32::try_from(name.len()).expect("short").to_le_bytes());
        variable.extend(u32::try_from(value.len()).expect("short").to_le_bytes());
        variable.extend(GLOBAL_VARIABLE);
        variable.extend(name);
        variable.extend(value);
        flash[at..at + variable.len()].copy_from_slice(&variable);
        at = (at + variable.len()).next_multiple_of(4);
    }
    fs::write(variables, flash).expect("our own file");
}

/// With the zero at its end.
fn utf16(text: &str) -> Vec<u8> {
    let units = text.encode_utf16().chain([0]);
    units.flat_map(u16::to_le_bytes).collect()
}

/// 8be4df61-93ca-11d2-aa0d-00e098032b8c
const GLOBAL_VARIABLE: [u8; 16] = [
    0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c,
];
