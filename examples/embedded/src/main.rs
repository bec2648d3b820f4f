//! An engine and its workers in one program, with async calls.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "showing something is what an example is for")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::ensure;
use futures_lite::future::{block_on, zip};
use ringway::{CallOptions, Failure, Function, Worker};
use ringway_engine::{Engine, Otlp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Goods taken from stock.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
struct Order {
    item: String,
    count: u32,
}

fn main() -> anyhow::Result<()> {
    // No file: the name begins with `@`. `Engine::builder().start()` would listen where every worker of this user looks.
    let address = format!("@ringway-example-embedded-{}", std::process::id());
    let engine = Engine::builder().address(&address).otlp(Otlp::Off).start()?;

    let stock = Worker::builder("stock").address(&address).connect()?;
    let goods = BTreeMap::from([("ring".to_owned(), 3), ("rope".to_owned(), 10)]);
    stock.register(take(goods).description("Takes goods from stock"))?;

    let shop = Worker::builder("shop").address(&address).connect()?;
    shop.wait_for("stock::take", Duration::from_secs(10))?;
    block_on(sell(&shop))?;

    // The engine's own functions are functions like any other.
    let until = Instant::now() + Duration::from_secs(10);
    let traced = loop {
        let found = shop.trigger_json("engine::traces::list", &json!({"function": "stock::take"}))?;
        let traces = found["traces"].as_array().map_or(0, Vec::len);
        if traces == 3 || Instant::now() >= until {
            break traces;
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    println!("{traced} calls traced");
    ensure!(traced == 3, "spans are missing");

    // Workers leave first, so that nobody looks for an engine that is gone.
    drop((shop, stock));
    engine.shutdown(Duration::from_secs(1));
    Ok(())
}

/// Makes the function that keeps the stock.
fn take(goods: BTreeMap<String, u32>) -> Function {
    let goods = Arc::new(Mutex::new(goods));
    Function::json_async("stock::take", move |_, order: Order| {
        let goods = Arc::clone(&goods);
        async move {
            let mut goods = goods.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(left) = goods.get_mut(&order.item) else {
                return Err(Failure::with_code("no_such_item", format!("there is no {}", order.item)));
            };
            *left = left.checked_sub(order.count).ok_or_else(|| {
                Failure::with_code("sold_out", format!("wanted {}, {} are left", order.count, *left))
            })?;
            Ok(*left)
        }
    })
}

async fn sell(shop: &Worker) -> anyhow::Result<()> {
    let options = CallOptions::new().timeout(Duration::from_secs(5));
    let order = |item: &str, count: u32| json!(Order { item: item.to_owned(), count });

    // Two calls at once.
    let (rings, ropes) = (order("ring", 2), order("rope", 4));
    let (rings, ropes) = zip(
        shop.trigger_json_async("stock::take", &rings, &options),
        shop.trigger_json_async("stock::take", &ropes, &options),
    )
    .await;
    println!("rings left: {}, ropes left: {}", number(&rings?), number(&ropes?));

    match shop.trigger_json_async("stock::take", &order("ring", 2), &options).await {
        Ok(left) => anyhow::bail!("sold what was not there; {left} are left"),
        Err(error) => println!("refused: {}", error.message),
    }
    Ok(())
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}
