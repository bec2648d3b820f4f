//! How long does each step of a call take, on one core, without another process? Criterion's view of
//! [`ringway_benches::STEPS`]; each figure includes one indirect call.

use criterion::{Criterion, criterion_group, criterion_main};
use ringway_benches::STEPS;

fn steps(criterion: &mut Criterion) {
    for step in STEPS {
        let mut take = (step.prepare)();
        criterion.bench_function(step.name, |bencher| bencher.iter(&mut take));
    }
}

criterion_group!(all, steps);
criterion_main!(all);
