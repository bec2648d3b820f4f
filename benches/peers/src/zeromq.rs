//! ZeroMQ over `ipc://`: REQ to REP, its documented request and response, and PAIR to PAIR, its lightest pattern.

use anyhow::{Context, bail};
use ringway_bench::report::CaseResult;
use zmq::SocketType;

use crate::harness::{Bench, LARGE, SMALL, answer, check, ready, stamp, stop_flag};

pub(crate) fn measure(bench: &Bench<'_>) -> anyhow::Result<Vec<CaseResult>> {
    let cases = [
        ("_req", SocketType::REQ, SMALL),
        ("_pair", SocketType::PAIR, SMALL),
        ("_req", SocketType::REQ, LARGE),
    ];
    cases.into_iter().map(|(variant, kind, bytes)| one_case(bench, variant, kind, bytes)).collect()
}

fn one_case(bench: &Bench<'_>, variant: &str, kind: SocketType, bytes: usize) -> anyhow::Result<CaseResult> {
    let path = bench.folder.join(format!("zmq{variant}-{bytes}"));
    let address = format!("ipc://{}", path.to_str().context("the folder's name is not text")?);
    let callee = bench.start(&[&address, variant])?;
    bench.pin_caller()?;
    let socket = zmq::Context::new().socket(kind)?;
    socket.connect(&address)?;
    let (mut request, mut response) = (vec![0; bytes], [0; SMALL]);
    bench.case(variant, bytes, &[callee.pid()], |sequence| {
        stamp(&mut request, sequence);
        socket.send(&request, 0)?;
        let len = socket.recv_into(&mut response, 0)?;
        check(&response[..len.min(SMALL)], sequence)
    })
}

pub(crate) fn serve(arguments: &[String]) -> anyhow::Result<()> {
    let [address, variant] = arguments else { bail!("wanted an address and a pattern") };
    let kind = if variant == "_pair" { SocketType::PAIR } else { SocketType::REP };
    let socket = zmq::Context::new().socket(kind)?;
    socket.bind(address)?;
    let _stop = stop_flag();
    ready("");
    let mut request = zmq::Message::new();
    loop {
        socket.recv(&mut request, 0)?;
        socket.send(answer(&request).as_slice(), 0)?;
    }
}
