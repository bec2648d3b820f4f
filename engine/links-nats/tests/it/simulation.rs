//! The catalog's protocol among simulated engines: whatever is lost, everybody knows in the end what everybody offers.

use std::time::Duration;

use crate::world::World;

const LONGEST: Duration = Duration::from_secs(60);

#[test]
fn all_know_all_whatever_is_lost() {
    for seed in 0..20 {
        let mut world = World::new(12, 5, seed);
        world.loss = Some(5);
        for host in 0..12 {
            world.start(host);
            world.run(Duration::from_millis(50));
        }
        for _ in 0..100 {
            let host = usize::try_from(world.random.below(12)).unwrap();
            match world.random.below(20) {
                0 => {
                    world.kill(host);
                    world.run(Duration::from_millis(300));
                    world.start(host);
                }
                1 => world.split(Some(host)),
                2 => world.split(None),
                _ => world.change(host),
            }
            let pause = world.random.below(1000);
            world.run(Duration::from_millis(pause));
        }
        world.split(None);
        let whole = world.run_until_whole(LONGEST);
        assert!(whole.is_some(), "seed {seed}: {} pairs are behind", world.behind());
    }
}

#[test]
fn a_change_is_one_message_whatever_the_number_of_hosts() {
    for hosts in [3, 30] {
        let mut world = World::new(hosts, 5, 1);
        (0..hosts).for_each(|host| world.start(host));
        assert!(world.run_until_whole(LONGEST).is_some());
        let before = world.traffic.published;
        world.change(0);
        assert_eq!(world.traffic.published - before, 1);
        assert!(world.run_until_whole(LONGEST).is_some());
    }
}
