//! tonic (gRPC over HTTP/2) on a Unix socket: unary calls, prost messages, written by hand so that no protoc is needed.

use std::convert::Infallible;
use std::task::{Context as TaskContext, Poll};

use anyhow::{Context, bail};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use hyper_util::rt::TokioIo;
use ringway_bench::report::CaseResult;
use tokio::net::{UnixListener, UnixStream};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::server::NamedService;
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::harness::{Bench, LARGE, SMALL, answer, check, ready, stamp, stop_flag};

/// Path of the one method.
const METHOD: &str = "/peers.Echo/Call";
/// Largest message that either side takes.
const MESSAGE_BYTES_MAX: usize = LARGE + 1024;

/// Both messages: one field of bytes.
#[derive(Clone, PartialEq, prost::Message)]
struct Payload {
    #[prost(bytes = "bytes", tag = "1")]
    data: Bytes,
}

pub(crate) fn measure(bench: &Bench<'_>) -> anyhow::Result<Vec<CaseResult>> {
    [SMALL, LARGE].into_iter().map(|bytes| one_case(bench, bytes)).collect()
}

fn one_case(bench: &Bench<'_>, bytes: usize) -> anyhow::Result<CaseResult> {
    let path = bench.folder.join(format!("tonic-{bytes}"));
    let path = path.to_str().context("the folder's name is not text")?.to_owned();
    let callee = bench.start(&[&path])?;
    bench.pin_caller()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut client = runtime.block_on(async {
        let connect = tower::service_fn(move |_| {
            let path = path.clone();
            async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(path).await?)) }
        });
        // Windows as large as the message, so that flow control does not make a large one wait.
        let endpoint = Endpoint::from_static("http://localhost");
        let endpoint = endpoint.initial_stream_window_size(1 << 25).initial_connection_window_size(1 << 25);
        let channel = endpoint.connect_with_connector(connect).await?;
        anyhow::Ok(tonic::client::Grpc::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX))
    })?;
    let mut request = vec![0; bytes];
    bench.case("", bytes, &[callee.pid()], |sequence| {
        stamp(&mut request, sequence);
        let message = Payload { data: Bytes::copy_from_slice(&request) };
        let response = runtime.block_on(async {
            client.ready().await?;
            let path = http::uri::PathAndQuery::from_static(METHOD);
            let codec = ProstCodec::<Payload, Payload>::default();
            anyhow::Ok(client.unary(Request::new(message), path, codec).await?)
        })?;
        check(&response.get_ref().data, sequence)
    })
}

pub(crate) fn serve(arguments: &[String]) -> anyhow::Result<()> {
    let [path] = arguments else { bail!("wanted a path") };
    let _stop = stop_flag();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = UnixListenerStream::new(UnixListener::bind(path)?);
        ready("");
        let mut server =
            Server::builder().initial_stream_window_size(1 << 25).initial_connection_window_size(1 << 25);
        server.add_service(Echo).serve_with_incoming(listener).await?;
        Ok(())
    })
}

/// The service: one unary method.
#[derive(Debug, Clone)]
struct Echo;

impl NamedService for Echo {
    const NAME: &'static str = "peers.Echo";
}

impl tower::Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            let codec = ProstCodec::<Payload, Payload>::default();
            let mut grpc = tonic::server::Grpc::new(codec).max_decoding_message_size(MESSAGE_BYTES_MAX);
            Ok(grpc.unary(Answer, request).await)
        })
    }
}

/// The method.
struct Answer;

impl tonic::server::UnaryService<Payload> for Answer {
    type Response = Payload;
    type Future = std::future::Ready<Result<Response<Payload>, Status>>;

    fn call(&mut self, request: Request<Payload>) -> Self::Future {
        let data = Bytes::copy_from_slice(&answer(&request.get_ref().data));
        std::future::ready(Ok(Response::new(Payload { data })))
    }
}
