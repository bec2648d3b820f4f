//! Many calls in flight from one thread, answered in the order of the requests.
//!
//! What a call needs beside its frame (the replicas, the channel, the places of its bookkeeping) is held by the pipeline,
//! so that a call touches nothing that another thread may be counting or exchanging: on the way of a stream of frames
//! each such exchange would wait until the frame before it has left this core. Otherwise a call is the one that
//! [`crate::Handle::start`] makes. Used through [`crate::Handle::pipeline`].

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::sync::Arc;

use arc_swap::{ArcSwap, Cache};
use ringway_protocol::header::Kind;
use ringway_protocol::telemetry::FunctionRef;
use ringway_protocol::{CallError, InvocationId};

use crate::call::{CallOptions, ClientSpan, Plan, Published, Request, patience_ns, publish, reference};
use crate::caller::{CallerChannel, Ended, kept};
use crate::function::Typed;
use crate::handle::{Handle, Reply, TypedHandle};
use crate::message::Message;
use crate::routes::{Route, Target};
use crate::wire::Received;

/// Calls in flight from one thread. Replies come in the order of the requests, whatever order they arrive in. Dropping it
/// gives up what is in flight.
///
/// A call that was published is not tried elsewhere, as one made by [`Handle::start`] is: for that the pipeline would have to
/// keep a copy of every request in flight, and its calls are counted in tens of nanoseconds. Its error says whether it may
/// have begun.
#[derive(Debug)]
pub struct Pipeline<'a> {
    handle: &'a Handle,
    options: CallOptions,
    targets: Cache<&'a ArcSwap<Vec<Target>>, Arc<Vec<Target>>>,
    /// The channels in use. A closed one stays until nothing is in flight.
    lanes: Vec<Arc<CallerChannel>>,
    flights: VecDeque<Flight>,
}

#[derive(Debug)]
struct Flight {
    lane: usize,
    invocation: InvocationId,
    target: FunctionRef,
    wait_until_ns: u64,
    /// Boxed to keep small what is moved for every call.
    span: Option<Box<ClientSpan>>,
}

impl<'a> Pipeline<'a> {
    pub(crate) fn new(handle: &'a Handle, options: CallOptions) -> Self {
        let targets = Cache::new(&handle.route.targets);
        Self { handle, options, targets, lanes: Vec::new(), flights: VecDeque::new() }
    }

    /// Publishes a call. Blocks while the callee is a whole ring behind.
    ///
    /// # Errors
    /// When the call could not be published; `busy` when as many are in flight as a channel takes (4,096).
    #[inline]
    pub fn submit(&mut self, message: &Message) -> Result<(), CallError> {
        self.submit_request(message)
    }

    /// Waits for the oldest call in flight; `None` when there is none.
    ///
    /// # Errors
    /// How that call ended otherwise.
    #[inline]
    pub fn recv(&mut self) -> Option<Result<Message, CallError>> {
        let mut reply = Received::blank();
        let ended = self.recv_into(&mut reply)?;
        Some(match ended {
            Ok(()) => Ok(reply.into_message()),
            Err(error) => Err(self.handle.named(*error)),
        })
    }

    /// Calls in flight.
    #[inline]
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.flights.len()
    }

    #[inline]
    fn submit_request(&mut self, request: &impl Request) -> Result<(), CallError> {
        let route = &*self.handle.route;
        let mut plan = Plan::new(self.handle.inner(), Kind::Call, &self.options);
        let targets = self.targets.load();
        if let Some(at) = Route::pick(targets, route.turn(), None)
            && let Some(lane) = open_lane(&self.lanes, &targets[at])
        {
            let target = &targets[at];
            let mut place = Message::empty();
            let message = request.message(target, &mut place).map_err(|error| *error)?;
            // What could not be published here is tried below, on whichever replica takes it.
            if let Ok(invocation) = plan.publish(target, &self.lanes[lane], message, None) {
                let target = reference(&target.function);
                let Plan { wait_until_ns, span, .. } = plan;
                self.flights.push_back(Flight {
                    lane,
                    invocation,
                    target,
                    wait_until_ns,
                    span: span.map(Box::new),
                });
                return Ok(());
            }
        }
        self.submit_slowly(request)
    }

    #[cold]
    fn submit_slowly(&mut self, request: &impl Request) -> Result<(), CallError> {
        if self.flights.is_empty() {
            self.lanes.retain(|lane| lane.channel.close_reason().is_none());
        }
        let mut plan = Plan::new(self.handle.inner(), Kind::Call, &self.options);
        let Published { caller, invocation, target } = publish(&mut plan, &self.handle.route, None, request)?;
        let lane = match self.lanes.iter().position(|lane| Arc::ptr_eq(lane, &caller)) {
            Some(lane) => lane,
            None => {
                self.lanes.push(caller);
                self.lanes.len() - 1
            }
        };
        let Plan { wait_until_ns, span, .. } = plan;
        self.flights.push_back(Flight { lane, invocation, target, wait_until_ns, span: span.map(Box::new) });
        Ok(())
    }

    #[inline]
    fn recv_into(&mut self, reply: &mut Received) -> Option<Ended> {
        let flight = self.flights.pop_front()?;
        let Handle { worker, route } = self.handle;
        let caller = &self.lanes[flight.lane];
        let ended = match caller.wait_quickly(flight.invocation, &route.expected, reply) {
            Some(ended) => ended,
            None => {
                let until = patience_ns(worker.inner(), flight.wait_until_ns);
                kept(caller.wait(flight.invocation, &route.expected, until), reply)
            }
        };
        if let Some(span) = &flight.span {
            span.record(worker.inner(), flight.target, &ended, reply);
        }
        Some(ended)
    }
}

impl Drop for Pipeline<'_> {
    fn drop(&mut self) {
        for flight in self.flights.drain(..) {
            self.lanes[flight.lane].abandon(flight.invocation);
        }
    }
}

/// The lane to a target, while its channel is open.
#[inline]
fn open_lane(lanes: &[Arc<CallerChannel>], target: &Target) -> Option<usize> {
    lanes
        .iter()
        .position(|lane| lane.peer() == target.function.worker && lane.channel.close_reason().is_none())
}

/// Typed calls in flight from one thread; see [`Pipeline`].
#[derive(Debug)]
pub struct TypedPipeline<'a, Req, Resp> {
    function: &'a TypedHandle<Req, Resp>,
    pipeline: Pipeline<'a>,
    _reply: PhantomData<fn() -> Resp>,
}

impl<'a, Req: Typed, Resp: Typed> TypedPipeline<'a, Req, Resp> {
    pub(crate) fn new(function: &'a TypedHandle<Req, Resp>, options: CallOptions) -> Self {
        Self { function, pipeline: Pipeline::new(function.handle(), options), _reply: PhantomData }
    }

    /// Publishes a call; see [`Pipeline::submit`].
    ///
    /// # Errors
    /// As [`Pipeline::submit`].
    #[inline]
    pub fn submit(&mut self, request: &Req) -> Result<(), CallError> {
        self.pipeline.submit_request(&self.function.say(request))
    }

    /// Waits for the oldest call in flight; `None` when there is none. The reply is read where it arrived.
    ///
    /// # Errors
    /// How that call ended otherwise.
    #[inline]
    pub fn recv(&mut self) -> Option<Result<Reply<Resp>, CallError>> {
        let mut reply = Received::blank();
        let ended = self.pipeline.recv_into(&mut reply)?;
        Some(match ended {
            Ok(()) => Reply::check(reply),
            Err(error) => Err(self.pipeline.handle.named(*error)),
        })
    }

    /// Calls in flight.
    #[inline]
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.pipeline.in_flight()
    }
}
