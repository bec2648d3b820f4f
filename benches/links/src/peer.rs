//! The other process: this executable again, on the other processor. It connects, says `ready` or what is in the way,
//! tells its processor time whenever asked on standard input, and leaves when that ends.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

use crate::bulk;
use crate::rows::{BULK, FRAMES, MANY, Work};

/// Pins the calling thread, and what it starts, to one processor.
pub(crate) fn pin(cpu: Option<usize>) -> anyhow::Result<()> {
    if let Some(cpu) = cpu {
        let mut set = CpuSet::new();
        set.set(cpu);
        sched_setaffinity(None, &set).context("could not be pinned")?;
    }
    Ok(())
}

/// Returns the first and the last processor that this process may use.
pub(crate) fn processors() -> anyhow::Result<(usize, usize)> {
    let set = sched_getaffinity(None)?;
    let allowed: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect();
    Ok((*allowed.first().context("no processor")?, *allowed.last().context("no processor")?))
}

/// Returns the processor time that this process has used, in user and kernel mode: `getrusage` in nanoseconds.
pub(crate) fn cpu_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default()
}

/// A peer under way.
pub(crate) struct Peer {
    child: Arc<Mutex<Child>>,
    orders: Option<ChildStdin>,
    words: BufReader<ChildStdout>,
    /// Ends the watch over it.
    done: Option<mpsc::Sender<()>>,
}

impl Peer {
    /// Starts the other side of a row and returns the connections to it. After `patience` the peer is killed, so that a
    /// row that hangs fails instead.
    pub(crate) fn start(
        work: Work,
        row: usize,
        cpu: Option<usize>,
        patience: Duration,
    ) -> anyhow::Result<(Self, Vec<TcpStream>)> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port().to_string();
        let cpu = cpu.map_or_else(|| "any".to_owned(), |cpu| cpu.to_string());
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["peer", work.name(), &row.to_string(), &port, &cpu]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (orders, words) = (child.stdin.take(), child.stdout.take());
        let words = BufReader::new(words.context("no standard output")?);
        let child = Arc::new(Mutex::new(child));
        let (done, over) = mpsc::channel::<()>();
        let watched = Arc::clone(&child);
        std::thread::spawn(move || {
            if over.recv_timeout(patience) == Err(mpsc::RecvTimeoutError::Timeout) {
                // One that has ended meanwhile is as good.
                drop(watched.lock().map(|mut child| child.kill()));
            }
        });
        let mut peer = Self { child, orders, words, done: Some(done) };
        match peer.word()?.as_str() {
            "ready" => {}
            "" => bail!("the peer died"),
            refused => bail!("{refused}"),
        }
        let accept = || {
            let (stream, _) = listener.accept()?;
            stream.set_nodelay(true)?;
            Ok(stream)
        };
        let streams = std::iter::repeat_with(accept).take(work.links()).collect::<std::io::Result<_>>()?;
        Ok((peer, streams))
    }

    fn word(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        self.words.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }

    /// Asks for its processor time.
    pub(crate) fn cpu_time(&mut self) -> anyhow::Result<Duration> {
        self.orders.as_mut().context("no standard input")?.write_all(b"cpu\n")?;
        let word = self.word()?;
        Ok(Duration::from_nanos(word.parse().with_context(|| format!("the peer said {word:?}"))?))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop((self.orders.take(), self.done.take()));
        // It ends by itself now; how does not matter any more.
        drop(self.child.lock().map(|mut child| child.wait()));
    }
}

/// The peer's own main function.
pub(crate) fn run(arguments: &[String]) -> anyhow::Result<()> {
    let [work, row, port, cpu] = arguments else { bail!("wanted a work, a row, a port and a processor") };
    let work = Work::ALL.into_iter().find(|known| known.name() == work).context("no such work")?;
    let (row, port): (usize, u16) = (row.parse()?, port.parse()?);
    let orders = std::thread::spawn(|| {
        for line in std::io::stdin().lines() {
            if line.is_err() {
                break;
            }
            println!("{}", cpu_time().as_nanos());
        }
        std::process::exit(0);
    });
    pin(cpu.parse().ok())?;
    let connect = || {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    };
    let mut streams =
        std::iter::repeat_with(connect).take(work.links()).collect::<std::io::Result<Vec<_>>>()?;
    let ready = || println!("ready");
    let done = match work {
        Work::Many => MANY[row].1.answer(streams, ready),
        Work::PingPong | Work::Stream => FRAMES[row].1.answer(streams.remove(0), ready),
        Work::Bulk => receive(row, streams.remove(0), ready),
    };
    if let Err(error) = done {
        println!("the peer: {error:#}");
    }
    // Processor time is still asked for after the stream has ended.
    drop(orders.join());
    Ok(())
}

fn receive(row: usize, stream: TcpStream, ready: impl FnOnce()) -> anyhow::Result<()> {
    let acks = stream.try_clone()?;
    let mut receiver = bulk::receiver(BULK[row].2, stream)?;
    ready();
    bulk::pull(receiver.as_mut(), &acks)
}
