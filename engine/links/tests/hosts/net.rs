//! A network of namespaces: one for each host, and one with a bridge to which all are plugged in. It must not know what
//! runs on the hosts.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// A network, gone with everything that runs in it when this is dropped.
pub(crate) struct Net {
    name: String,
    hosts: usize,
}

/// How a host is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Its interface is down, and it knows.
    Interface,
    /// The other end of the cable is pulled.
    Cable,
    /// Everything is there, and nothing arrives.
    Silence,
    /// Little gets through, late or not at all.
    Slow,
}

pub(crate) const CUTS: [Cut; 4] = [Cut::Interface, Cut::Cable, Cut::Silence, Cut::Slow];

/// Runs a program of iproute2. Says what went wrong.
fn run(words: &[&str]) -> Result<(), String> {
    let told = |error: &dyn std::fmt::Display| format!("`{}`: {error}", words.join(" "));
    let output = Command::new(words[0]).args(&words[1..]).output().map_err(|error| {
        format!("{} (it is in the Debian package iproute2, which `cargo links` installs)", told(&error))
    })?;
    if output.status.success() {
        return Ok(());
    }
    Err(told(&String::from_utf8_lossy(&output.stderr).trim()))
}

fn must(line: &str) {
    let words: Vec<&str> = line.split_whitespace().collect();
    if let Err(reason) = run(&words) {
        panic!(
            "hosts of the test are network namespaces, and this machine refuses them: {reason}. That takes root, or a \
             container with CAP_NET_ADMIN and CAP_SYS_ADMIN"
        );
    }
}

impl Net {
    pub(crate) fn new(hosts: usize) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("rw{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        // From here on it is taken down whatever happens.
        let net = Self { name, hosts };
        let bridge = net.bridge();
        must(&format!("ip netns add {bridge}"));
        must(&format!("ip -n {bridge} link add br0 type bridge forward_delay 0"));
        must(&format!("ip -n {bridge} link set br0 up"));
        for host in 0..hosts {
            let (space, port) = (net.space(host), format!("p{host}"));
            must(&format!("ip netns add {space}"));
            must(&format!("ip -n {bridge} link add {port} type veth peer name eth0 netns {space}"));
            must(&format!("ip -n {bridge} link set {port} master br0 up"));
            must(&format!("ip -n {space} address add {}/24 dev eth0", Self::address(host)));
            must(&format!("ip -n {space} link set lo up"));
            must(&format!("ip -n {space} link set eth0 up"));
        }
        net
    }

    fn bridge(&self) -> String {
        format!("{}-br", self.name)
    }

    fn space(&self, host: usize) -> String {
        format!("{}-{host}", self.name)
    }

    /// The address of a host. The names of its namespaces tell networks apart, so that all may have the same addresses.
    pub(crate) fn address(host: usize) -> String {
        format!("10.77.0.{}", host + 1)
    }

    /// A program that is started on a host, whose clock that no one sets is so many seconds ahead of this machine's.
    pub(crate) fn program(&self, host: usize, ahead_s: u64) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.space(host)]);
        if ahead_s > 0 {
            // Each of these becomes the next, so that the process that is started is the program in the end.
            command.args(["unshare", "--time", "--monotonic", &ahead_s.to_string()]);
        }
        command
    }

    pub(crate) fn cut(&self, host: usize, cut: Cut) {
        let (bridge, space) = (self.bridge(), self.space(host));
        match cut {
            Cut::Interface => must(&format!("ip -n {space} link set eth0 down")),
            Cut::Cable => must(&format!("ip -n {bridge} link set p{host} down")),
            Cut::Silence => must(&format!("ip -n {bridge} link set p{host} nomaster")),
            Cut::Slow => {
                let netem =
                    format!("tc -n {bridge} qdisc replace dev p{host} root netem delay 40ms 20ms loss 5%");
                let words: Vec<&str> = netem.split_whitespace().collect();
                if run(&words).is_err() {
                    // Not every kernel has netem. A bucket this small delays and drops too.
                    must(&format!(
                        "tc -n {bridge} qdisc replace dev p{host} root tbf rate 4mbit burst 4kb limit 32kb"
                    ));
                }
            }
        }
    }

    pub(crate) fn heal(&self, host: usize, cut: Cut) {
        let (bridge, space) = (self.bridge(), self.space(host));
        match cut {
            Cut::Interface => must(&format!("ip -n {space} link set eth0 up")),
            Cut::Cable => must(&format!("ip -n {bridge} link set p{host} up")),
            Cut::Silence => must(&format!("ip -n {bridge} link set p{host} master br0")),
            Cut::Slow => must(&format!("tc -n {bridge} qdisc del dev p{host} root")),
        }
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for name in (0..self.hosts).map(|host| self.space(host)).chain([self.bridge()]) {
            // One that was never made is not there.
            drop(run(&["ip", "netns", "del", &name]));
        }
    }
}
