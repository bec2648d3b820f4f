//! Links over runtimes: tokio (epoll), tokio-uring, and gRPC with tonic on tokio. Each has a loop of its own, since
//! entering a runtime for each turn would be charged to it.

use std::convert::Infallible;
use std::net::TcpStream;
use std::task::{Context as TaskContext, Poll};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_stream::StreamExt;
use tokio_uring::buf::BoundedBuf;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::server::NamedService;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::frames::{Asking, FRAME, READ, Sample, Window, histogram};

/// Returns tokio's runtime of one thread.
pub(crate) fn one_thread() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Returns tokio-uring's runtime, as it comes.
pub(crate) fn uring_thread() -> std::io::Result<tokio_uring::Runtime> {
    tokio_uring::Runtime::new(&tokio_uring::builder())
}

/// The asking side over tokio, a task for each link.
pub(crate) struct Tokio {
    runtime: tokio::runtime::Runtime,
    streams: Vec<tokio::net::TcpStream>,
}

impl Tokio {
    pub(crate) fn new(streams: Vec<TcpStream>) -> std::io::Result<Self> {
        let runtime = one_thread()?;
        let streams = streams.into_iter().map(|stream| {
            stream.set_nonblocking(true)?;
            runtime.block_on(async { tokio::net::TcpStream::from_std(stream) })
        });
        let streams = streams.collect::<std::io::Result<_>>()?;
        Ok(Self { runtime, streams })
    }

    /// The answering side.
    pub(crate) fn echo(self) -> anyhow::Result<()> {
        let Self { runtime, streams } = self;
        runtime.block_on(async {
            let tasks: Vec<_> =
                streams.into_iter().map(|stream| tokio::spawn(echo_on_tokio(stream))).collect();
            for task in tasks {
                task.await??;
            }
            Ok(())
        })
    }
}

impl Asking for Tokio {
    fn run(&mut self, window: usize, time: Duration) -> anyhow::Result<Sample> {
        let Self { runtime, streams } = self;
        runtime.block_on(async {
            let ask = |stream| tokio::spawn(ask_on_tokio(stream, window, time));
            let tasks: Vec<_> = streams.drain(..).map(ask).collect();
            let mut samples = Vec::new();
            for task in tasks {
                let (stream, sample) = task.await.context("a task panicked")??;
                streams.push(stream);
                samples.push(sample);
            }
            Sample::together(samples)
        })
    }
}

async fn ask_on_tokio(
    mut stream: tokio::net::TcpStream,
    window: usize,
    time: Duration,
) -> anyhow::Result<(tokio::net::TcpStream, Sample)> {
    let mut frames = Window::new(time)?;
    let (mut out, mut buffer) = (Vec::with_capacity(READ), vec![0; READ]);
    frames.ask(window, Instant::now(), &mut out);
    while !frames.is_done() {
        stream.write_all(&out).await?;
        out.clear();
        let count = stream.read(&mut buffer).await?;
        ensure!(count > 0, "the answering side left");
        frames.arrived(&buffer[..count], &mut out);
    }
    Ok((stream, frames.finish()?))
}

async fn echo_on_tokio(mut stream: tokio::net::TcpStream) -> std::io::Result<()> {
    let mut buffer = vec![0; READ];
    loop {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..count]).await?;
    }
}

/// The asking side over tokio-uring, a task for each link.
pub(crate) struct TokioUring {
    runtime: tokio_uring::Runtime,
    streams: Vec<tokio_uring::net::TcpStream>,
}

impl TokioUring {
    pub(crate) fn new(streams: Vec<TcpStream>) -> std::io::Result<Self> {
        let runtime = uring_thread()?;
        Ok(Self {
            streams: streams.into_iter().map(tokio_uring::net::TcpStream::from_std).collect(),
            runtime,
        })
    }

    /// The answering side.
    pub(crate) fn echo(self) -> anyhow::Result<()> {
        let Self { runtime, streams } = self;
        runtime.block_on(async {
            let echo = |stream| tokio_uring::spawn(echo_on_uring(stream));
            let tasks: Vec<_> = streams.into_iter().map(echo).collect();
            for task in tasks {
                task.await??;
            }
            Ok(())
        })
    }
}

impl Asking for TokioUring {
    fn run(&mut self, window: usize, time: Duration) -> anyhow::Result<Sample> {
        let Self { runtime, streams } = self;
        runtime.block_on(async {
            let ask = |stream| tokio_uring::spawn(ask_on_uring(stream, window, time));
            let tasks: Vec<_> = streams.drain(..).map(ask).collect();
            let mut samples = Vec::new();
            for task in tasks {
                let (stream, sample) = task.await.context("a task panicked")??;
                streams.push(stream);
                samples.push(sample);
            }
            Sample::together(samples)
        })
    }
}

async fn ask_on_uring(
    stream: tokio_uring::net::TcpStream,
    window: usize,
    time: Duration,
) -> anyhow::Result<(tokio_uring::net::TcpStream, Sample)> {
    let mut frames = Window::new(time)?;
    let (mut out, mut buffer) = (Vec::with_capacity(READ), vec![0; READ]);
    frames.ask(window, Instant::now(), &mut out);
    while !frames.is_done() {
        // An empty write would be a completion for nothing.
        let (count, read) = if out.is_empty() {
            stream.read(buffer).await
        } else {
            let ((sent, back), read) = tokio::join!(stream.write_all(out), stream.read(buffer));
            sent?;
            out = back;
            read
        };
        buffer = read;
        out.clear();
        let count = count?;
        ensure!(count > 0, "the answering side left");
        frames.arrived(&buffer[..count], &mut out);
    }
    Ok((stream, frames.finish()?))
}

/// The next read is submitted together with the write, into a second buffer.
async fn echo_on_uring(stream: tokio_uring::net::TcpStream) -> std::io::Result<()> {
    let (mut empty, read) = (vec![0; READ], vec![0; READ]);
    let (mut arrived, mut full) = stream.read(read).await;
    loop {
        let count = arrived?;
        if count == 0 {
            return Ok(());
        }
        let ((sent, part), (next, read)) =
            tokio::join!(stream.write_all(full.slice(..count)), stream.read(empty));
        sent?;
        (empty, full, arrived) = (part.into_inner(), read, next);
    }
}

/// Path of the one method.
const METHOD: &str = "/links.Echo/Call";

/// Both messages: one field of bytes.
#[derive(Clone, PartialEq, prost::Message)]
struct Payload {
    #[prost(bytes = "bytes", tag = "1")]
    data: Bytes,
}

/// The asking side over gRPC: unary calls on one channel.
pub(crate) struct Tonic {
    runtime: tokio::runtime::Runtime,
    channel: Channel,
}

impl Tonic {
    pub(crate) fn new(stream: TcpStream) -> anyhow::Result<Self> {
        stream.set_nonblocking(true)?;
        let runtime = one_thread()?;
        let channel = runtime.block_on(async {
            let mut stream = Some(tokio::net::TcpStream::from_std(stream)?);
            let connect = tower::service_fn(move |_| {
                let stream =
                    stream.take().ok_or_else(|| std::io::Error::other("there is one connection only"));
                std::future::ready(stream.map(TokioIo::new))
            });
            anyhow::Ok(Endpoint::from_static("http://localhost").connect_with_connector(connect).await?)
        })?;
        Ok(Self { runtime, channel })
    }
}

impl Asking for Tonic {
    fn run(&mut self, window: usize, time: Duration) -> anyhow::Result<Sample> {
        let Self { runtime, channel } = self;
        runtime.block_on(async {
            let started = Instant::now();
            let until = started + time;
            let tasks = (0..window).map(|_| tokio::spawn(call_until(channel.clone(), until)));
            let mut times = histogram()?;
            for task in tasks.collect::<Vec<_>>() {
                times.add(task.await.context("a task of calls panicked")??)?;
            }
            Ok(Sample { times, elapsed: started.elapsed() })
        })
    }
}

async fn call_until(channel: Channel, until: Instant) -> anyhow::Result<hdrhistogram::Histogram<u64>> {
    let mut client = tonic::client::Grpc::new(channel);
    let mut times = histogram()?;
    let mut sequence = 0_u64;
    let mut now = Instant::now();
    while now < until {
        let mut frame = [0; FRAME];
        frame[..8].copy_from_slice(&sequence.to_le_bytes());
        client.ready().await?;
        let path = http::uri::PathAndQuery::from_static(METHOD);
        let message = Payload { data: Bytes::copy_from_slice(&frame) };
        let response =
            client.unary(Request::new(message), path, ProstCodec::<Payload, Payload>::default()).await?;
        ensure!(response.get_ref().data == frame[..], "wanted the frame back");
        let left = std::mem::replace(&mut now, Instant::now());
        times.saturating_record((now - left).as_nanos().try_into().unwrap_or(u64::MAX));
        sequence += 1;
    }
    Ok(times)
}

/// The answering side over gRPC. Ends with the process.
pub(crate) fn serve_tonic(stream: TcpStream) -> anyhow::Result<()> {
    stream.set_nonblocking(true)?;
    one_thread()?.block_on(async {
        let stream = tokio::net::TcpStream::from_std(stream);
        let connections = tokio_stream::once(stream).chain(tokio_stream::pending());
        Ok(Server::builder().add_service(Echo).serve_with_incoming(connections).await?)
    })
}

/// The service: one unary method.
#[derive(Debug, Clone)]
struct Echo;

impl NamedService for Echo {
    const NAME: &'static str = "links.Echo";
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
            let mut grpc = tonic::server::Grpc::new(ProstCodec::<Payload, Payload>::default());
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
        std::future::ready(Ok(Response::new(request.into_inner())))
    }
}
