//! Promises under faults, a test each, named for the promise.

use callvault::testing::world::{Engine, World};

use super::kit::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_survives_the_loss_of_the_index() {
    for engine in [Engine::Memory, Engine::Sled] {
        let dir = directory();
        let mut world = World::new(dir.path(), engine, 1).unwrap();
        world.open().await.unwrap();
        let t = make_tenant(world.vault(), "acme").await;
        let body = content(1, 100_000);
        let a = put(world.vault(), spec(&t, descriptor("c", "+5215512345678")), &body).await.unwrap();
        let mut new = descriptor("d", "+5215500000000");
        new.start.0 += HOUR;
        let b = world.vault().update(update(&t, a.id, &["parties", "start_time"], new)).await.unwrap();
        no_findings(world.vault()).await;
        for _ in 0..3 {
            world.close().await;
            world.open().await.unwrap();
        }
        assert_eq!(everything(world.vault(), &t).await, std::slice::from_ref(&b));
        world.close().await;
        world.lose_index().await.unwrap();
        let replayed = world.open().await.unwrap().unwrap();
        assert_eq!((replayed.records, replayed.adopted), (1, 0));
        assert_eq!(everything(world.vault(), &t).await, [b]);
        assert_eq!(read(world.vault(), &t, a.id).await.unwrap(), body);
        no_findings(world.vault()).await;
        world.close().await;
    }
}
