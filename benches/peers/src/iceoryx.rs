//! iceoryx2 request-response, both processes polling: loaned memory, fixed-size payloads where they are small, one client,
//! one server, nothing that could wake anybody.

use std::sync::atomic::Ordering;

use anyhow::bail;
use iceoryx2::prelude::*;
use iceoryx2::service::port_factory::request_response::PortFactory;
use ringway_bench::report::CaseResult;

use crate::harness::{
    Bench, IN_FLIGHT, LARGE, Response, SMALL, answer, check, poll, ready, relax, stamp, stop_flag,
};

/// A small request.
type Small = [u8; SMALL];

pub(crate) fn measure(bench: &Bench<'_>) -> anyhow::Result<Vec<CaseResult>> {
    set_log_level(LogLevel::Error);
    Ok(vec![small(bench)?, in_flight(bench)?, large(bench)?])
}

fn small(bench: &Bench<'_>) -> anyhow::Result<CaseResult> {
    let name = service_name("small");
    let callee = bench.start(&["small", &name])?;
    bench.pin_caller()?;
    let node = NodeBuilder::new().create::<ipc::Service>()?;
    let client = small_service(&node, &name)?.client_builder().create()?;
    bench.case("", SMALL, &[callee.pid()], |sequence| {
        let mut request = [0; SMALL];
        stamp(&mut request, sequence);
        let pending = client.loan_uninit()?.write_payload(request).send()?;
        check(poll(|| Ok(pending.receive()?))?.payload(), sequence)
    })
}

/// Keeps many requests under way; their responses are taken in the order of the requests.
fn in_flight(bench: &Bench<'_>) -> anyhow::Result<CaseResult> {
    let name = service_name("inflight");
    let callee = bench.start(&["small", &name])?;
    bench.pin_caller()?;
    let node = NodeBuilder::new().create::<ipc::Service>()?;
    let client = small_service(&node, &name)?.client_builder().create()?;
    bench.in_flight(
        &[callee.pid()],
        |sequence| {
            let mut request = [0; SMALL];
            stamp(&mut request, sequence);
            Ok(client.loan_uninit()?.write_payload(request).send()?)
        },
        |pending, sequence| check(poll(|| Ok(pending.receive()?))?.payload(), sequence),
    )
}

fn large(bench: &Bench<'_>) -> anyhow::Result<CaseResult> {
    let name = service_name("large");
    let callee = bench.start(&["large", &name])?;
    bench.pin_caller()?;
    let node = NodeBuilder::new().create::<ipc::Service>()?;
    let client = large_service(&node, &name)?.client_builder().initial_max_slice_len(LARGE).create()?;
    // Written once: the loan then comes back warm, as a program that reuses its buffers would see it.
    bench.case("", LARGE, &[callee.pid()], |sequence| {
        let mut request = client.loan_slice_uninit(LARGE)?;
        let payload = request.payload_mut();
        let word = sequence.to_le_bytes();
        for (at, byte) in word.iter().enumerate() {
            payload[at].write(*byte);
            payload[LARGE - word.len() + at].write(*byte);
        }
        // SAFETY: the loan is memory that the kernel zeroed or an earlier loan filled, and a byte is valid with any bits;
        // writing 16 MiB here would time a memset, which the transport does not ask for.
        #[expect(unsafe_code, reason = "the transport's own way to send memory that was filled in place")]
        let request = unsafe { request.assume_init() };
        let pending = request.send()?;
        check(poll(|| Ok(pending.receive()?))?.payload(), sequence)
    })
}

pub(crate) fn serve(arguments: &[String]) -> anyhow::Result<()> {
    set_log_level(LogLevel::Error);
    let [kind, name] = arguments else { bail!("wanted a kind of request and a service") };
    let stop = stop_flag();
    let node = NodeBuilder::new().create::<ipc::Service>()?;
    // The loops are the same, but their types are not.
    macro_rules! answer_all {
        ($server:expr) => {{
            let server = $server;
            ready("");
            while !stop.load(Ordering::Relaxed) {
                match server.receive()? {
                    Some(request) => {
                        let response = answer(&request.payload()[..]);
                        request.loan_uninit()?.write_payload(response).send()?;
                    }
                    None => relax(),
                }
            }
        }};
    }
    match kind.as_str() {
        "small" => answer_all!(small_service(&node, name)?.server_builder().create()?),
        "large" => answer_all!(large_service(&node, name)?.server_builder().create()?),
        _ => bail!("no such kind of request"),
    }
    Ok(())
}

fn service_name(kind: &str) -> String {
    format!("ringway-peers/{kind}/{}", std::process::id())
}

fn small_service(
    node: &Node<ipc::Service>,
    name: &str,
) -> anyhow::Result<PortFactory<ipc::Service, Small, (), Response, ()>> {
    let builder = node.service_builder(&name.try_into()?).request_response::<Small, Response>();
    let builder = builder.max_active_requests_per_client(IN_FLIGHT).max_loaned_requests(2).max_clients(1);
    Ok(builder.max_servers(1).max_nodes(2).max_response_buffer_size(1).open_or_create()?)
}

fn large_service(
    node: &Node<ipc::Service>,
    name: &str,
) -> anyhow::Result<PortFactory<ipc::Service, [u8], (), Response, ()>> {
    let builder = node.service_builder(&name.try_into()?).request_response::<[u8], Response>();
    let builder = builder.max_active_requests_per_client(1).max_loaned_requests(1).max_clients(1);
    Ok(builder.max_servers(1).max_nodes(2).max_response_buffer_size(1).open_or_create()?)
}
