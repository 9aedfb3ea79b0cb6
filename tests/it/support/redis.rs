//! A Redis for tests, of the kind that this machine has.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use testcontainers::core::{IntoContainerPort, WaitFor};
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerAsync, GenericImage};

use super::eventually;

/// How long a Redis may take to start or to stop answering.
const PATIENCE: Duration = Duration::from_secs(20);

/// A Redis that lives as long as this value, unless it ran before.
///
/// In this order: the one that `RELAY_TEST_REDIS_URL` names, a container (if Docker answers and has the image that
/// `RELAY_TEST_REDIS_IMAGE` names, `redis:7` by default; nothing is ever pulled), a `redis-server` of this machine.
pub struct RedisFixture {
    url: String,
    kind: Kind,
}

enum Kind {
    External,
    Container { _container: Box<ContainerAsync<GenericImage>> },
    Local(Local),
}

/// A server process of this machine.
pub(super) struct Local {
    pub(super) port: u16,
    folder: TempDir,
    args: Vec<String>,
    server: Option<Child>,
}

impl RedisFixture {
    /// A Redis that may be shared with other tests, so each test must use its own keys.
    pub async fn any() -> Self {
        if let Ok(url) = std::env::var("RELAY_TEST_REDIS_URL") {
            return Self { url, kind: Kind::External };
        }
        match Self::container().await {
            Some(fixture) => fixture,
            None => Self::local().await,
        }
    }

    /// A Redis of this test alone, always a local process: it can be stopped, paused and started again.
    pub async fn local() -> Self {
        Self::with(&[]).await
    }

    /// As [`RedisFixture::local`], with more arguments for the server.
    pub async fn with(args: &[&str]) -> Self {
        let local = Local::with(args).await;
        Self { url: format!("redis://127.0.0.1:{}", local.port), kind: Kind::Local(local) }
    }

    async fn container() -> Option<Self> {
        let image = std::env::var("RELAY_TEST_REDIS_IMAGE").unwrap_or_else(|_| "redis:7".to_owned());
        let (name, tag) = image.rsplit_once(':')?;
        let mut inspect = Command::new("docker");
        inspect.args(["image", "inspect", &image]).stdout(Stdio::null()).stderr(Stdio::null());
        inspect.status().ok().filter(std::process::ExitStatus::success)?;
        let container = GenericImage::new(name, tag)
            .with_exposed_port(6379.tcp())
            .with_wait_for(WaitFor::message_on_stdout("Ready to accept connections"))
            .start()
            .await
            .expect("docker starts an image that it has");
        let port = container.get_host_port_ipv4(6379).await.expect("the port is mapped");
        Some(Self {
            url: format!("redis://127.0.0.1:{port}"),
            kind: Kind::Container { _container: Box::new(container) },
        })
    }

    /// Its address.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its address for this user and password, as in `user:password`.
    pub fn url_for(&self, credentials: &str) -> String {
        self.url.replace("://", &format!("://{credentials}@"))
    }

    /// Gives the user `relay` these rights and the password `hunter2`, and no others.
    pub fn allow(&mut self, rights: &str) {
        let words = "ACL SETUSER relay reset on >hunter2".split(' ').chain(rights.split_whitespace());
        assert!(self.command(&words.collect::<Vec<_>>()).starts_with("+OK"), "{rights}");
    }

    /// The folder in which it saves.
    pub fn folder(&mut self) -> &std::path::Path {
        self.own().folder.path()
    }

    /// Kills it without warning.
    pub async fn stop(&mut self) {
        self.own().kill();
    }

    /// Starts it again at the same address, empty.
    pub async fn restart(&mut self) {
        let local = self.own();
        local.kill();
        eventually(PATIENCE, async || local.start().await.then_some(())).await;
    }

    /// Stops it from running while its connections stay open, as an overloaded machine would.
    pub fn pause(&mut self) {
        self.own().signal("-STOP");
    }

    /// Resumes it after [`RedisFixture::pause`].
    pub fn resume(&mut self) {
        self.own().signal("-CONT");
    }

    /// Sends it one command, given as words, and returns the start of its raw answer.
    pub fn command(&mut self, words: &[&str]) -> String {
        self.own().command(words).expect("redis answers")
    }

    fn own(&mut self) -> &mut Local {
        match &mut self.kind {
            Kind::Local(local) => local,
            Kind::External | Kind::Container { .. } => panic!("this test needs RedisFixture::local()"),
        }
    }
}

impl Local {
    /// A server that is up, with these arguments.
    pub(super) async fn with(args: &[&str]) -> Self {
        // RUST_LOG shows the log of a failed test.
        let logs = tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env());
        let _ = logs.with_test_writer().try_init();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let args = args.iter().map(ToString::to_string).collect();
        let mut local = Self { port: 0, folder, args, server: None };
        let started = async || {
            // Below 55535, so that a Cluster's bus, 10000 above, has a port too.
            let free = std::iter::repeat_with(|| TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()));
            let mut ports = free.flatten().map(|address| address.port());
            local.port = ports.find(|port| *port < 55_535).expect("a free port");
            local.start().await.then_some(())
        };
        eventually(PATIENCE, started).await;
        local
    }

    /// `false`: another process took the port meanwhile.
    pub(super) async fn start(&mut self) -> bool {
        let mut server = Command::new("redis-server");
        server.args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        server.args(&self.args).arg("--dir").arg(self.folder.path()).stdin(Stdio::null()).stdout(Stdio::null());
        let server = server.spawn().unwrap_or_else(|error| {
            panic!("no redis for the tests ({error}): install redis-server, or name one in RELAY_TEST_REDIS_URL")
        });
        let process = format!("process_id:{}\r", server.id());
        self.server = Some(server);
        eventually(PATIENCE, async || {
            let ended =
                self.server.as_mut().is_none_or(|server| server.try_wait().is_ok_and(|status| status.is_some()));
            // A server without INFO cannot say who it is.
            let mine = |info: String| info.contains(&process) || info.contains("unknown command 'INFO'");
            let mine = self.command(&["INFO", "server"]).is_some_and(mine);
            if mine || ended { Some(mine) } else { None }
        })
        .await
    }

    /// Sends one command, given as words. Returns the start of the raw answer.
    pub(super) fn command(&self, words: &[&str]) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = [0; 4096];
        let length = stream.read(&mut answer).ok()?;
        Some(String::from_utf8_lossy(&answer[..length]).into_owned())
    }

    pub(super) fn signal(&self, signal: &str) {
        let server = self.server.as_ref().expect("it runs");
        let status = Command::new("kill").args([signal, &server.id().to_string()]).status().expect("kill is there");
        assert!(status.success(), "the signal was sent");
    }

    pub(super) fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        self.kill();
    }
}
