//! Measures embedded stores with fsync on, beside what the disk does at best in the same run. Used by whoever chooses or
//! doubts the choice in docs/decisions/0013-store.md; it must not know what stands on a store.
//!
//! ```text
//! ringway-stores FOLDER writes|queue|gets|damage [redb|fjall|sqlite|ringway] [SIZE]
//! ```

#![forbid(unsafe_code)]

mod damage;
mod engines;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use engines::{NAMES, Op};
use hdrhistogram::Histogram;
use ringway_store::{Batch, Durability, Embedded, Options, Store};

/// Bytes of a value in every measurement.
const VALUE_BYTES: usize = 256;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let folder = PathBuf::from(arguments.first().context("wanted a folder on the disk to measure")?);
    let what = arguments.get(1).map_or("writes", String::as_str);
    let only = arguments.get(2).filter(|name| NAMES.contains(&name.as_str()));
    let size: Option<usize> = arguments.last().and_then(|size| size.parse().ok());
    for name in NAMES.iter().filter(|name| only.is_none_or(|only| only == *name)) {
        let place = tempfile::Builder::new().prefix("stores-").tempdir_in(&folder)?;
        match what {
            "writes" => writes(name, place.path())?,
            "queue" => queue(name, place.path(), size)?,
            "gets" => gets(name, place.path(), size.unwrap_or(1_000_000))?,
            "damage" => damage::flips(name, place.path(), size.unwrap_or(200))?,
            "fill" => damage::fill_until_killed(name, &folder)?,
            other => anyhow::bail!("wanted writes, queue, gets or damage, found {other}"),
        }
        if what == "fill" {
            break;
        }
    }
    Ok(())
}

/// The time of one `fdatasync` after writing 256 bytes within a file, one after the other: what a serial writer pays at
/// least.
fn floor(folder: &Path) -> Result<Duration> {
    let path = folder.join("floor");
    let mut file = fs::File::create(&path)?;
    file.write_all(&vec![0; 4 << 20])?;
    file.sync_all()?;
    let block = [7; VALUE_BYTES];
    let mut times = Histogram::<u64>::new(3)?;
    for round in 0..2000_u64 {
        let begin = Instant::now();
        std::os::unix::fs::FileExt::write_all_at(&file, &block, round * VALUE_BYTES as u64)?;
        rustix::fs::fdatasync(&file)?;
        times.record(begin.elapsed().as_nanos() as u64)?;
    }
    fs::remove_file(path)?;
    Ok(Duration::from_nanos(times.value_at_quantile(0.5)))
}

fn key(number: u64) -> Vec<u8> {
    number.to_be_bytes().to_vec()
}

/// A key that lies anywhere, so that neighbours in time are no neighbours in the store.
fn scattered(number: u64) -> Vec<u8> {
    key(number.wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

fn value() -> Vec<u8> {
    (0..VALUE_BYTES).map(|_| fastrand::u8(..)).collect()
}

/// Bytes that this process has had written to the disk.
fn disk_bytes() -> u64 {
    let text = fs::read_to_string("/proc/self/io").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn resident_mib() -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) / 1024
}

fn folder_bytes(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(data) if data.is_dir() => folder_bytes(&entry.path()),
        Ok(data) => data.blocks() * 512,
        Err(_) => 0,
    });
    sizes.sum()
}

/// Durable writes per second: groups of a size handed over at once, then real threads with one write in flight each.
fn writes(name: &str, folder: &Path) -> Result<()> {
    let floor = floor(folder)?;
    println!("{name}: floor, one serial fdatasync: {:.0} µs", floor.as_secs_f64() * 1e6);
    let mut store = engines::open(name, folder)?;
    let mut number = 0;
    let (disk, begin_keys) = (disk_bytes(), number);
    for size in [1, 8, 64] {
        let begin = Instant::now();
        let mut groups = 0_u32;
        while begin.elapsed() < Duration::from_secs(4) {
            let group: Vec<Op> = (0..size).map(|i| Op::Put(scattered(number + i), value())).collect();
            number += size;
            store.commit(&group, true)?;
            groups += 1;
        }
        let each = begin.elapsed() / groups;
        let rate = size as f64 / each.as_secs_f64();
        let times = rate * floor.as_secs_f64();
        println!(
            "{name}: groups of {size}: {:.0} µs each, {rate:.0} writes/s, {times:.1} × the floor",
            each.as_secs_f64() * 1e6
        );
    }
    let logical = (number - begin_keys) * (VALUE_BYTES as u64 + 8);
    println!(
        "{name}: {number} keys, {:.1} bytes written per byte stored, {:.2} × their size on disk",
        (disk_bytes() - disk) as f64 / logical as f64,
        folder_bytes(folder) as f64 / logical as f64
    );
    if name == "ringway" {
        drop(store);
        return threads(&folder.join("threads"), floor);
    }
    let (sender, receiver) = mpsc::sync_channel::<(Op, mpsc::SyncSender<()>)>(64);
    let mut producers = Vec::new();
    for thread in 0..64_u64 {
        let sender = sender.clone();
        producers.push(thread::spawn(move || {
            let (done, wait) = mpsc::sync_channel(1);
            let begin = Instant::now();
            let mut written = 0;
            while begin.elapsed() < Duration::from_secs(4) {
                let op = Op::Put(scattered((thread << 40) + written), value());
                if sender.send((op, done.clone())).is_err() || wait.recv().is_err() {
                    break;
                }
                written += 1;
            }
            written
        }));
    }
    drop(sender);
    let begin = Instant::now();
    while let Ok(first) = receiver.recv() {
        let (mut ops, mut waiting) = (vec![first.0], vec![first.1]);
        while let Ok((op, done)) = receiver.try_recv() {
            ops.push(op);
            waiting.push(done);
        }
        store.commit(&ops, true)?;
        for done in waiting {
            let _ = done.send(());
        }
    }
    let elapsed = begin.elapsed();
    let written: u64 = producers.into_iter().filter_map(|producer| producer.join().ok()).sum();
    let rate = written as f64 / elapsed.as_secs_f64();
    println!(
        "{name}: 64 threads, one write in flight each: {rate:.0} writes/s, {:.1} × the floor",
        rate * floor.as_secs_f64()
    );
    Ok(())
}

/// Our own store has a committer: 64 threads that wait for each commit, then 64 commits under way from one thread.
fn threads(folder: &Path, floor: Duration) -> Result<()> {
    let (store, _) = Embedded::open(folder, Options::default())?;
    let tell = |what: &str, written: u64, elapsed: Duration| {
        let rate = written as f64 / elapsed.as_secs_f64();
        println!("ringway: {what}: {rate:.0} writes/s, {:.1} × the floor", rate * floor.as_secs_f64());
    };
    let begin = Instant::now();
    let written: u64 = thread::scope(|scope| {
        let producers: Vec<_> = (0..64_u64)
            .map(|thread| {
                let store = &store;
                scope.spawn(move || {
                    let mut written = 0;
                    while begin.elapsed() < Duration::from_secs(4) {
                        let batch =
                            Batch::new().put("entries", &scattered((thread << 40) + written), value());
                        if store.commit(batch, Durability::Durable).is_err() {
                            break;
                        }
                        written += 1;
                    }
                    written
                })
            })
            .collect();
        producers.into_iter().filter_map(|producer| producer.join().ok()).sum()
    });
    tell("64 threads, one write in flight each", written, begin.elapsed());
    for short_lived in [false, true] {
        let begin = Instant::now();
        let (done, told) = mpsc::sync_channel(64);
        let mut written = 0_u64;
        while begin.elapsed() < Duration::from_secs(4) {
            if written >= 64 {
                told.recv()?;
            }
            let key = |number: u64| if short_lived { key(number) } else { scattered(number) };
            let mut batch = Batch::new().put("entries", &key(written), value());
            if short_lived && written >= 1000 {
                batch = batch.delete("entries", &key(written - 1000));
            }
            let done = done.clone();
            store.submit(batch, Durability::Durable, Box::new(move |_| drop(done.send(()))))?;
            written += 1;
        }
        let elapsed = begin.elapsed();
        let what = if short_lived { "in order, removed after 1000 others" } else { "all over the store" };
        tell(&format!("64 in flight from one thread, {what}"), written, elapsed);
    }
    println!("ringway: {:?}", store.metrics());
    Ok(())
}

/// Cost of a message of a queue that holds many: enqueue, lease and acknowledge in durable groups of 64.
fn queue(name: &str, folder: &Path, only: Option<usize>) -> Result<()> {
    for waiting in [100, 10_000, 1_000_000] {
        if only.is_some_and(|only| only != waiting) {
            continue;
        }
        let place = folder.join(waiting.to_string());
        fs::create_dir(&place)?;
        let mut store = engines::open(name, &place)?;
        let mut tail = 0_u64;
        while tail < waiting as u64 {
            let end = (tail + 10_000).min(waiting as u64);
            let group: Vec<Op> = (tail..end).map(|number| Op::Put(key(number), value())).collect();
            store.commit(&group, end == waiting as u64)?;
            tail = end;
        }
        for naive in [false, true] {
            let mut head = Vec::new();
            let (begin, mut messages) = (Instant::now(), 0_u32);
            while begin.elapsed() < Duration::from_secs(6) {
                let enqueued: Vec<Op> =
                    (tail..tail + 64).map(|number| Op::Put(key(number), value())).collect();
                tail += 64;
                store.commit(&enqueued, true)?;
                let found = store.scan(if naive { &[] } else { &head }, 64)?;
                let leased: Vec<Op> =
                    found.iter().map(|(key, value)| Op::Put(key.clone(), value.clone())).collect();
                store.commit(&leased, true)?;
                let done: Vec<Op> = found.iter().map(|(key, _)| Op::Delete(key.clone())).collect();
                store.commit(&done, true)?;
                if let Some((last, _)) = found.last() {
                    head = last.clone();
                }
                messages += found.len() as u32;
            }
            let each = begin.elapsed().as_secs_f64() * 1e6 / f64::from(messages.max(1));
            let how = if naive { "from the first key" } else { "from where the last scan ended" };
            println!(
                "{name}: {waiting} waiting, scanned {how}: {each:.1} µs a message ({messages} messages)"
            );
        }
    }
    Ok(())
}

/// Time of a read with few keys and with many, and the memory that it takes.
fn gets(name: &str, folder: &Path, many: usize) -> Result<()> {
    for keys in [1000, many] {
        let place = folder.join(keys.to_string());
        fs::create_dir(&place)?;
        let mut store = engines::open(name, &place)?;
        let begin = Instant::now();
        for start in (0..keys as u64).step_by(10_000) {
            let end = (start + 10_000).min(keys as u64);
            let mut group: Vec<Op> = (start..end).map(|number| Op::Put(scattered(number), value())).collect();
            group.sort_by(|a, b| match (a, b) {
                (Op::Put(a, _), Op::Put(b, _)) => a.cmp(b),
                _ => std::cmp::Ordering::Equal,
            });
            // A durable commit now and then, as an engine that runs would make.
            store.commit(&group, start % 200_000 == 0 || end == keys as u64)?;
        }
        let loaded = begin.elapsed();
        drop(store);
        let begin = Instant::now();
        let store = engines::open(name, &place)?;
        let opened = begin.elapsed();
        let mut times = Histogram::<u64>::new(3)?;
        for round in 0..300_000_u64 {
            let wanted = scattered(fastrand::u64(..keys as u64));
            let begin = Instant::now();
            let found = store.get(&wanted)?;
            if round >= 100_000 {
                times.record(begin.elapsed().as_nanos() as u64)?;
            }
            anyhow::ensure!(found.is_some(), "a key that was written is not there");
        }
        println!(
            "{name}: {keys} keys: get p50 {} ns, p99 {} ns; {} MiB resident, {} MiB on disk; loaded in {:.1} s, opened in {:.3} s",
            times.value_at_quantile(0.5),
            times.value_at_quantile(0.99),
            resident_mib(),
            folder_bytes(&place) >> 20,
            loaded.as_secs_f64(),
            opened.as_secs_f64()
        );
    }
    Ok(())
}
