//! NATS: request and response over a real `nats-server` on loopback TCP, the only transport that it has.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use futures_util::StreamExt;
use ringway_bench::report::CaseResult;

use crate::harness::{Bench, SMALL, answer, check, ready, stamp, stop_flag};

/// How long the server may take to start.
const PATIENCE: Duration = Duration::from_secs(10);
/// Where requests go.
const SUBJECT: &str = "peers.echo";

pub(crate) fn measure(bench: &Bench<'_>) -> anyhow::Result<Vec<CaseResult>> {
    // Before pinning: the server has threads of its own and may use every processor.
    let server = Server::start(bench.folder)?;
    let callee = bench.start(&[&server.address])?;
    bench.pin_caller()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let client = runtime.block_on(async_nats::connect(&server.address))?;
    let mut request = vec![0; SMALL];
    let case = bench.case("", SMALL, &[callee.pid(), server.child.id()], |sequence| {
        stamp(&mut request, sequence);
        let asked = client.request(SUBJECT, bytes::Bytes::copy_from_slice(&request));
        check(&runtime.block_on(asked)?.payload, sequence)
    });
    Ok(vec![case?])
}

pub(crate) fn serve(arguments: &[String]) -> anyhow::Result<()> {
    let [address] = arguments else { bail!("wanted an address") };
    let _stop = stop_flag();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = async_nats::connect(address).await?;
        let mut requests = client.subscribe(SUBJECT).await?;
        // The subscription must have reached the server before the first request does.
        client.flush().await?;
        ready("");
        while let Some(request) = requests.next().await {
            let reply = request.reply.context("a request without a reply subject")?;
            client.publish(reply, bytes::Bytes::copy_from_slice(&answer(&request.payload))).await?;
        }
        Ok(())
    })
}

/// A server of our own on a free port, ended when dropped.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(folder: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new("nats-server");
        command.args(["--addr", "127.0.0.1", "--port", "-1", "--ports_file_dir"]).arg(folder);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child =
            child.context("nats-server could not be started; on Debian: apt-get install nats-server")?;
        let mut server = Self { child, address: String::new() };
        let ports = folder.join(format!("nats-server_{}.ports", server.child.id()));
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            let told = std::fs::read(&ports)
                .ok()
                .and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).ok());
            if let Some(address) = told.as_ref().and_then(|told| told["nats"][0].as_str()) {
                address.clone_into(&mut server.address);
                return Ok(server);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!("nats-server did not say its port in {} s", PATIENCE.as_secs())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.child.kill().is_ok() {
            drop(self.child.wait());
        }
    }
}
