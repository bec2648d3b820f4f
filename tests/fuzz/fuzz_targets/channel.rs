//! A channel end against a peer that lies, both driven by the input: ring, peer socket, segments, leases, bells. The
//! harness is that of `tests/it/hostile`, whose seeds become bytes here.
#![no_main]

#[expect(dead_code, reason = "a lying worker does more with it")]
#[path = "../../it/hostile/attacker.rs"]
mod attacker;
#[expect(dead_code, reason = "seeds are for the tests")]
#[path = "../../it/hostile/choices.rs"]
mod choices;
#[expect(dead_code, reason = "the tests print what a run has done")]
#[path = "../../it/hostile/end.rs"]
mod end;

use libfuzzer_sys::fuzz_target;
use ringway_ipc::channel::{CloseReason, Role};

use choices::Choices;
use end::Tally;

fuzz_target!(|data: &[u8]| {
    let mut choices = Choices::Bytes(data);
    let mut tally = Tally::default();
    let role = if choices.once_in(2) { Role::Caller } else { Role::Callee };
    let lie_once_in = choices.pick(&[2, 4, 16]).unwrap_or(4);
    let Ok((mut victim, mut attacker)) = end::open(role, lie_once_in, &mut choices) else { return };
    let mut reason = None;
    while reason.is_none() && !choices.ended() {
        attacker.act(&mut choices);
        reason = victim.step(&mut choices, &mut tally);
    }
    let reason = reason.unwrap_or_else(|| victim.close(CloseReason::Local));
    victim.over(reason, &mut tally);
});
