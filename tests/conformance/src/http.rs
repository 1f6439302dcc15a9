//! A blocking HTTP/1.1 client of a few lines, for requests that no proper client would send.
//!
//! One connection a request. Answers are read whole ([`Address::request`]) or as a stream ([`Address::open`]), and a connection
//! that the engine has upgraded (attach, exec) can be written to. TLS is not spoken.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

/// Where an engine listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A socket file.
    Unix(PathBuf),
    /// `host:port`, without TLS.
    Tcp(String),
}

/// A connection to an engine.
#[derive(Debug)]
pub enum Connection {
    /// Over a socket file.
    Unix(UnixStream),
    /// Over TCP.
    Tcp(TcpStream),
}

/// A request's answer, or its head while the body is still on its way.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// Header names in lower case with their values.
    pub headers: Vec<(String, String)>,
    /// The body, decoded.
    pub body: Vec<u8>,
}

/// An open answer whose body is read as it comes.
#[derive(Debug)]
pub struct Stream {
    /// Status and headers; its body is empty.
    pub head: Answer,
    reader: BufReader<Connection>,
    left: Left,
}

/// A connection for many requests, one after the other.
#[derive(Debug)]
pub struct Session {
    /// Taken while an answer is being read; gone after an error.
    reader: Option<BufReader<Connection>>,
}

/// How much of a body is still to come.
#[derive(Debug)]
enum Left {
    /// Until the connection ends.
    Endless,
    /// This many bytes.
    Bytes(u64),
    /// This many of the current chunk, then more chunks.
    Chunk(u64),
    /// Nothing.
    End,
}

/// How long a connection may stay silent before a read fails.
pub const SILENCE: Duration = Duration::from_secs(120);

impl Address {
    /// What `DOCKER_HOST` says; Docker's own socket without it.
    ///
    /// # Errors
    /// A scheme that is not understood.
    pub fn from_environment() -> Result<Self, String> {
        Self::parse(&std::env::var("DOCKER_HOST").unwrap_or_else(|_| "unix:///run/docker.sock".to_owned()))
    }

    /// Parses what `DOCKER_HOST` may hold: `unix://PATH` or `tcp://HOST:PORT`.
    ///
    /// # Errors
    /// Any other scheme.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix://") {
            Ok(Self::Unix(PathBuf::from(path)))
        } else if let Some(host) = text.strip_prefix("tcp://") {
            Ok(Self::Tcp(host.trim_end_matches('/').to_owned()))
        } else {
            Err(format!("DOCKER_HOST is {text:?}: only unix://PATH and tcp://HOST:PORT are understood"))
        }
    }

    /// The address as `DOCKER_HOST` wants it.
    #[must_use]
    pub fn url(&self) -> String {
        match self {
            Self::Unix(path) => format!("unix://{}", path.display()),
            Self::Tcp(host) => format!("tcp://{host}"),
        }
    }

    /// Connects.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn connect(&self) -> io::Result<Connection> {
        self.connect_within(SILENCE)
    }

    fn connect_within(&self, silence: Duration) -> io::Result<Connection> {
        let connection = match self {
            Self::Unix(path) => Connection::Unix(UnixStream::connect(path)?),
            Self::Tcp(host) => Connection::Tcp(TcpStream::connect(host)?),
        };
        connection.set_read_timeout(silence)?;
        Ok(connection)
    }

    /// Sends one request and reads its whole answer.
    ///
    /// # Errors
    /// A connection that fails, or an answer that is not HTTP.
    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<Answer> {
        self.request_within(SILENCE, method, path, headers, body)
    }

    /// The same with an engine that may stay silent for so long only.
    ///
    /// # Errors
    /// A connection that fails, an answer that is not HTTP, and none in time ([`is_silence`]).
    pub fn request_within(
        &self,
        silence: Duration,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Answer> {
        let mut stream = Self::ask(self.connect_within(silence)?, method, path, headers, body)?;
        let mut answer = std::mem::take(&mut stream.head);
        stream.read_to_end(&mut answer.body)?;
        Ok(answer)
    }

    /// Sends one request and reads the head of its answer.
    ///
    /// # Errors
    /// A connection that fails, or an answer that is not HTTP.
    pub fn open(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<Stream> {
        Self::ask(self.connect()?, method, path, headers, body)
    }

    fn ask(
        mut connection: Connection,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Stream> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: engine\r\nContent-Length: {}\r\n", body.len());
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("connection")) {
            head.push_str("Connection: close\r\n");
        }
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        connection.write_all(format!("{head}\r\n").as_bytes())?;
        // an engine may refuse a large body before it has read it, and the answer is what counts
        let sent = connection.write_all(body);
        Stream::read_head(BufReader::new(connection), method == "HEAD").map_err(|error| sent.err().unwrap_or(error))
    }

    /// Connects for many requests.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn session(&self) -> io::Result<Session> {
        Ok(Session { reader: Some(BufReader::new(self.connect()?)) })
    }

    /// Sends these bytes as they are, ends the sending side, and returns all that comes back.
    ///
    /// # Errors
    /// A connection that fails; one that the engine resets returns what came before.
    pub fn raw(&self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut connection = self.connect()?;
        connection.write_all(bytes)?;
        connection.shutdown(Shutdown::Write)?;
        let mut answer = Vec::new();
        match connection.read_to_end(&mut answer) {
            Err(error) if error.kind() != io::ErrorKind::ConnectionReset => Err(error),
            _ => Ok(answer),
        }
    }
}

/// Whether this error says that nothing came in time.
#[must_use]
pub fn is_silence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

impl Connection {
    /// How long a read may wait.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_read_timeout(&self, timeout: Duration) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.set_read_timeout(Some(timeout)),
            Self::Tcp(stream) => stream.set_read_timeout(Some(timeout)),
        }
    }

    /// Ends one direction.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.shutdown(how),
            Self::Tcp(stream) => stream.shutdown(how),
        }
    }
}

impl Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.read(buffer),
            Self::Tcp(stream) => stream.read(buffer),
        }
    }
}

impl Write for Connection {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.write(buffer),
            Self::Tcp(stream) => stream.write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Answer {
    /// A header's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(have, _)| have.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Session {
    /// Sends one request with a JSON body and reads its whole answer.
    ///
    /// # Errors
    /// A connection that fails, or has failed before; an answer that is not HTTP.
    pub fn ask(&mut self, method: &str, path: &str, body: &[u8]) -> io::Result<Answer> {
        let mut reader = self.reader.take().ok_or_else(|| io::Error::other("the connection has failed before"))?;
        let head = format!("{method} {path} HTTP/1.1\r\nHost: engine\r\nContent-Type: application/json\r\n");
        let request = [format!("{head}Content-Length: {}\r\n\r\n", body.len()).as_bytes(), body].concat();
        reader.get_mut().write_all(&request)?;
        let mut stream = Stream::read_head(reader, false)?;
        let mut answer = std::mem::take(&mut stream.head);
        stream.read_to_end(&mut answer.body)?;
        let chunked = answer.header("transfer-encoding").is_some();
        if chunked {
            // the line end after the last chunk
            read_line(&mut stream.reader)?;
        }
        self.reader = Some(stream.reader);
        Ok(answer)
    }
}

impl Stream {
    fn read_head(mut reader: BufReader<Connection>, bodiless: bool) -> io::Result<Self> {
        let first = read_line(&mut reader)?;
        let status = first.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("not an HTTP answer: {first:?}")))?;
        let mut head = Answer { status, ..Answer::default() };
        loop {
            let line = read_line(&mut reader)?;
            if line.is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':') {
                head.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
            }
        }
        let left = if bodiless || matches!(status, 204 | 304) {
            Left::End
        } else if head.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
            Left::Chunk(0)
        } else if let Some(length) = head.header("content-length").and_then(|length| length.parse().ok()) {
            Left::Bytes(length)
        } else {
            Left::Endless
        };
        Ok(Self { head, reader, left })
    }

    /// The connection below, to write to after an upgrade.
    pub fn connection(&mut self) -> &mut Connection {
        self.reader.get_mut()
    }

    /// The next line of the body without its end; `None` at the end of the body.
    ///
    /// # Errors
    /// A connection that fails or stays silent for too long.
    pub fn line(&mut self) -> io::Result<Option<String>> {
        let mut line = Vec::new();
        let mut byte = [0];
        while self.read(&mut byte)? == 1 {
            if byte[0] == b'\n' {
                return Ok(Some(String::from_utf8_lossy(&line).into_owned()));
            }
            line.push(byte[0]);
        }
        Ok(if line.is_empty() { None } else { Some(String::from_utf8_lossy(&line).into_owned()) })
    }

    fn next_chunk(&mut self) -> io::Result<Left> {
        let mut line = read_line(&mut self.reader)?;
        if line.is_empty() {
            line = read_line(&mut self.reader)?;
        }
        let size = line.split(';').next().unwrap_or_default();
        match u64::from_str_radix(size.trim(), 16) {
            Ok(0) => Ok(Left::End),
            Ok(size) => Ok(Left::Chunk(size)),
            Err(_) => Err(io::Error::other(format!("not a chunk size: {line:?}"))),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Left::Chunk(0) = self.left {
            self.left = self.next_chunk()?;
        }
        let most = match self.left {
            Left::End | Left::Bytes(0) => return Ok(0),
            Left::Endless => u64::MAX,
            Left::Bytes(left) | Left::Chunk(left) => left,
        };
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.reader.read(&mut buffer[..most])?;
        match &mut self.left {
            Left::Bytes(left) | Left::Chunk(left) => {
                if count == 0 && most > 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                *left -= count as u64;
            }
            Left::Endless | Left::End => {}
        }
        Ok(count)
    }
}

fn read_line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}

/// Percent-encodes a query value.
#[must_use]
pub fn encode(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
        out
    })
}
