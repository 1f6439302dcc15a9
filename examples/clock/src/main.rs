//! A clock: the sample program that `cargo xtask up` runs as a service and that the tests run in containers.
//!
//! It prints one line every `CLOCK_SECONDS` (1) with its version (`CLOCK_VERSION`) and its host name and, where
//! `CLOCK_PORT` is set, answers every HTTP request and every datagram on that port with the same line. `clock lines COUNT BYTES` writes COUNT numbered
//! lines of BYTES bytes each as fast as it can, for measuring what a log costs. It links nothing but the C library, statically, so that
//! an image of it needs no base image.

use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        [] => tick(),
        ["lines", count, bytes] => match (count.parse(), bytes.parse()) {
            (Ok(count), Ok(bytes)) => lines(count, bytes),
            _ => usage(),
        },
        _ => usage(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("clock: {error}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> io::Result<()> {
    Err(io::Error::new(io::ErrorKind::InvalidInput, "usage: clock [lines COUNT BYTES]"))
}

/// Prints a line every interval, for ever.
fn tick() -> io::Result<()> {
    let interval = number("CLOCK_SECONDS").unwrap_or(1);
    if let Some(port) = number("CLOCK_PORT") {
        let port = u16::try_from(port).map_err(|_| io::Error::other("CLOCK_PORT is not a port"))?;
        let listener = TcpListener::bind(("0.0.0.0", port))?;
        let socket = UdpSocket::bind(("0.0.0.0", port))?;
        thread::spawn(move || serve(&listener));
        thread::spawn(move || echo(&socket));
    }
    loop {
        let mut out = io::stdout().lock();
        writeln!(out, "{}", line())?;
        out.flush()?;
        drop(out);
        thread::sleep(Duration::from_secs(interval));
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn line() -> String {
    let version = std::env::var("CLOCK_VERSION").unwrap_or_else(|_| "unknown".to_owned());
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let day = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() % 86_400);
    let (hours, minutes, seconds) = (day / 3600, day / 60 % 60, day % 60);
    format!("clock {version} on {}: {hours:02}:{minutes:02}:{seconds:02} UTC", host.trim())
}

fn serve(listener: &TcpListener) {
    for stream in listener.incoming().flatten() {
        thread::spawn(move || {
            if let Err(error) = answer(stream) {
                eprintln!("clock: a client went away: {error}");
            }
        });
    }
}

fn echo(socket: &UdpSocket) {
    let mut datagram = [0; 1500];
    while let Ok((_, client)) = socket.recv_from(&mut datagram) {
        if let Err(error) = socket.send_to(line().as_bytes(), client) {
            eprintln!("clock: no answer to {client}: {error}");
        }
    }
}

fn answer(stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut lines = BufReader::new(&stream).lines();
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let body = line();
    write!(&stream, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}\n", body.len() + 1)
}

/// Writes numbered lines, each of exactly `bytes` bytes with its line end.
fn lines(count: u64, bytes: usize) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    let padding = "x".repeat(bytes.saturating_sub(13));
    for number in 0..count {
        writeln!(out, "{number:011} {padding}")?;
    }
    out.flush()
}
