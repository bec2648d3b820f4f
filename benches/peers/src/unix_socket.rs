//! A Unix stream socket, blocking and polled: what a careful program gets without any library.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};

use anyhow::Context;
use ringway_bench::report::CaseResult;

use crate::harness::{Bench, LARGE, SMALL, answer, check, ready, relax, stamp, stop_flag};

pub(crate) fn measure(bench: &Bench<'_>) -> anyhow::Result<Vec<CaseResult>> {
    let small = [("", false), ("_polled", true)];
    let mut cases = Vec::new();
    for (variant, polled) in small {
        cases.push(one_case(bench, variant, polled, SMALL)?);
    }
    cases.push(one_case(bench, "", false, LARGE)?);
    Ok(cases)
}

fn one_case(bench: &Bench<'_>, variant: &str, polled: bool, bytes: usize) -> anyhow::Result<CaseResult> {
    let path = bench.folder.join(format!("unix{variant}-{bytes}"));
    let path = path.to_str().context("the folder's name is not text")?;
    let callee = bench.start(&[path, &bytes.to_string(), if polled { "polled" } else { "blocking" }])?;
    bench.pin_caller()?;
    let mut socket = UnixStream::connect(path)?;
    socket.set_nonblocking(polled)?;
    let (mut request, mut response) = (vec![0; bytes], [0; SMALL]);
    bench.case(variant, bytes, &[callee.pid()], |sequence| {
        stamp(&mut request, sequence);
        send(&mut socket, &request)?;
        receive(&mut socket, &mut response)?;
        check(&response, sequence)
    })
}

pub(crate) fn serve(arguments: &[String]) -> anyhow::Result<()> {
    let [path, bytes, waiting] = arguments else { anyhow::bail!("wanted a path, a size, a way to wait") };
    let listener = UnixListener::bind(path)?;
    let _stop = stop_flag();
    ready("");
    let (mut socket, _) = listener.accept()?;
    socket.set_nonblocking(waiting == "polled")?;
    let mut request = vec![0; bytes.parse()?];
    while receive(&mut socket, &mut request).is_ok() {
        send(&mut socket, &answer(&request))?;
    }
    Ok(())
}

/// Writes everything; on a socket that does not block, tries until it is done.
fn send(socket: &mut UnixStream, mut bytes: &[u8]) -> std::io::Result<()> {
    while !bytes.is_empty() {
        match socket.write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => relax(),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Fills the buffer; on a socket that does not block, tries until it is full.
fn receive(socket: &mut UnixStream, mut bytes: &mut [u8]) -> std::io::Result<()> {
    while !bytes.is_empty() {
        match socket.read(bytes) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(read) => bytes = &mut bytes[read..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => relax(),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
