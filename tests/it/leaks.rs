//! Attach, call, die, ten thousand times: what the engine and the surviving workers hold must not grow. The processes of
//! `crash` die by signal; here workers come and go by the hundred, in this process and in others, in good order and not.

use std::time::Duration;

use ringway::{Encoding, Message, Sampler, Worker};
use ringway_tests::census::Census;
use ringway_tests::effort;
use ringway_tests::load;
use ringway_tests::local;
use ringway_tests::member::Member;
use ringway_tests::service;

const PATIENCE: Duration = Duration::from_secs(30);
/// Private memory that a process may have more after all rounds than after the first fifth of them, KiB. Allocators keep
/// what they had at their peak; a leak of 1 KiB a round would be 8 MiB over ten thousand rounds.
const GROWTH_KIB: u64 = 6 << 10;
/// Threads that a pool may have more than at the base.
const THREADS_SPARE: u64 = 16;

struct Scene {
    address: String,
    engine: Member,
    callee: Member,
    survivor: Worker,
}

impl Scene {
    fn new() -> Self {
        let address = local::address();
        let engine = Member::start(&["engine", &address]);
        let callee = Member::start(&["callee", &address, "steady"]);
        let survivor = Worker::builder("survivor").address(&address).threads(4).connect().unwrap();
        survivor.register_all(service::functions("survivor", |_| {})).unwrap();
        Self { address, engine, callee, survivor }
    }

    fn members(&self) -> [(&'static str, u32); 3] {
        [("engine", self.engine.pid()), ("callee", self.callee.pid()), ("this process", std::process::id())]
    }

    /// A worker that attaches, serves, calls, is called, and leaves with payloads in its hands.
    fn come_and_go(&self, round: u64) {
        let builder = Worker::builder("passing").address(&self.address).threads(2).sampler(Sampler::always());
        let worker = builder.connect().unwrap();
        let own = format!("passing::r{}", round % 7);
        worker
            .register(ringway::Function::raw(&own, |_, request| Ok(Message::bytes(request.body()))))
            .unwrap();
        for target in ["steady", "survivor"] {
            worker.wait_for(&format!("{target}::inline"), PATIENCE).unwrap();
            let mut ended = Vec::new();
            for shape in ["inline", "pooled", "async", "blob", "stream"] {
                load::call(&worker, target, shape, round, &mut ended);
            }
            let failed: Vec<_> = ended.iter().filter(|end| end.outcome.is_err()).collect();
            assert!(failed.is_empty(), "{failed:?}");
        }
        self.survivor.wait_for(&own, PATIENCE).unwrap();
        let mut loan = self.survivor.loan(50_000).unwrap();
        loan.fill(3);
        let _lent_when_it_leaves =
            self.survivor.handle(&own).call(&Message::from_loan(Encoding::Bytes, loan)).unwrap();
    }

    fn settle(&self) -> Vec<Census> {
        let gone = |catalog: &ringway::protocol::control::Catalog| {
            catalog.workers.iter().all(|worker| worker.name != "passing" && worker.name != "caller")
        };
        assert!(self.survivor.wait_until(PATIENCE, gone), "the catalog still has workers that left");
        std::thread::sleep(Duration::from_millis(500));
        self.members().iter().map(|(_, pid)| Census::of(*pid).unwrap()).collect()
    }
}

#[test]
fn nothing_grows_with_rounds() {
    let scene = Scene::new();
    let rounds = effort::rounds(200);
    let die = |round: u64| {
        // Every twentieth by kill -9, in the middle of its calls.
        let mut member = Member::start(&["caller", &scene.address, "steady", "loop"]);
        std::thread::sleep(Duration::from_millis(round % 11));
        member.kill();
        drop(member.rest());
    };
    let pass = |round: u64| if round.is_multiple_of(20) { die(round) } else { scene.come_and_go(round) };
    let warm = (rounds / 5).max(20);
    (0..warm).for_each(pass);
    let before = scene.settle();
    (warm..warm + rounds).for_each(pass);
    let after = scene.settle();
    for (((name, pid), before), mut after) in scene.members().into_iter().zip(before).zip(after) {
        let allowed = Census { threads: before.threads + THREADS_SPARE, ..before };
        if !after.fits(&allowed) {
            after = Census::settle(pid, &allowed, PATIENCE).unwrap();
        }
        println!("{name}: after {warm} rounds {before:?}, after {} {after:?}", warm + rounds);
        assert!(after.fits(&allowed), "{name} holds more than before: {:#?}", Census::descriptors(pid));
        let growth = after.private_kib.saturating_sub(before.private_kib);
        assert!(growth <= GROWTH_KIB, "{name} grew by {growth} KiB in {rounds} rounds");
    }
}
