use super::*;

/// The worlds that parameters were tuned on, and those that results are reported on.
fn ten_seeds() -> impl Iterator<Item = u64> {
    (0..5).chain(100..105).map(|run| run << 32)
}

#[test]
fn ten_worlds_are_fair() {
    for seed in ten_seeds() {
        let start = std::time::Instant::now();
        let store = Store::new(Config::new(seed), Some(1));
        let took = start.elapsed();
        match store {
            Ok(store) => {
                let c = store.calibration.as_ref().unwrap();
                println!(
                    "{:3} {took:?} tau {:.3} b0 {:.3} {:?}",
                    seed >> 32,
                    store.strength.tau,
                    store.strength.b0,
                    Calibration { best_weights: [0.0; 27], ..c.clone() }
                );
            }
            Err(error) => println!("{:3} {took:?} {error}", seed >> 32),
        }
    }
}
