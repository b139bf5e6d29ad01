//! The real process is killed under mixed load, again and again: what was acknowledged is there, byte for byte, what was
//! not is made exactly once by its retry, and what was erased is not there any more; keys turn and sweeps run meanwhile.
//!
//! `CALLVAULT_KILLS` says how often (10 when it does not), `CALLVAULT_SEED` where the moments come from;
//! `scripts/crash_campaign.sh` makes a thousand and keeps what they showed.

mod erasing;
mod wish;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use callvault::{
    client::{Client, ClientError, ClientFile, Code, Retry},
    proto::v1::{ListRecordsRequest, Record, RecordQuery},
};
use futures_util::TryStreamExt;
use tokio::sync::Mutex;

use crate::support::{Place, Server};

use self::{
    erasing::{Graves, is_gone},
    wish::{Noise, What, Wish},
};

/// Things done at a time.
const STREAMS: u64 = 6;
/// Longest time under load before a kill.
const LONGEST_LOAD: Duration = Duration::from_millis(400);

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let number = |name: &str, default| std::env::var(name).map_or(default, |n| n.parse().unwrap());
    let campaign = Campaign {
        place: Place::new(),
        kills: number("CALLVAULT_KILLS", 10),
        seed: number("CALLVAULT_SEED", 1),
        book: Book::default(),
        graves: Graves::default(),
        reads: AtomicU64::new(0),
    };
    tokio::runtime::Runtime::new().unwrap().block_on(campaign.run());
}

/// What was acknowledged, and what nobody heard of again.
#[derive(Default)]
struct Book {
    acknowledged: Mutex<BTreeMap<String, Kept>>,
    unheard: Mutex<Vec<Wish>>,
    names: AtomicU64,
}

/// A record that must be there.
#[derive(Clone, Debug)]
struct Kept {
    conversation: String,
    content: Noise,
    label: Option<String>,
}

struct Campaign {
    place: Place,
    kills: u64,
    seed: u64,
    book: Book,
    graves: Graves,
    /// Of records, under load.
    reads: AtomicU64,
}

impl Campaign {
    async fn run(self) {
        let this = Arc::new(self);
        let begun = Instant::now();
        let (mut retried, mut checked, mut slowest_start) = (0, 0, Duration::ZERO);
        let mut server = Server::start(&this.place.data());
        for round in 0..this.kills {
            this.load_until_killed(round, server).await;
            if round % 7 == 3 {
                // A start may be killed as well.
                Server::spawn(&this.place.data()).kill_after(this.moment(round, 60));
            }
            let starting = Instant::now();
            server = Server::start(&this.place.data());
            slowest_start = slowest_start.max(starting.elapsed());
            retried += this.make_good().await;
            retried += this.make_erasures_good(&this.hands().await).await;
            checked += this.check_sample(round).await;
        }
        let hands = this.hands().await;
        this.make_final(&hands).await;
        let (records, tenants) = this.check_final(&hands).await;
        drop(hands);
        let kept = this.check_all().await;
        let client = this.client("reader").await;
        assert!(
            kept.len() as u64 >= this.kills,
            "only {} were acknowledged",
            kept.len()
        );
        let listed = list(&client, RecordQuery::default()).await.len();
        assert!(listed >= kept.len(), "{listed} of {} are listed", kept.len());
        drop(client);
        assert_eq!(server.stop(), Some(0));
        this.scrub();
        // The bucket alone says the same.
        std::fs::rename(this.place.data().join("index"), this.place.path("index.old")).unwrap();
        let server = Server::start(&this.place.data());
        this.check_all().await;
        assert_eq!(this.check_final(&this.hands().await).await, (records, tenants));
        assert_eq!(server.stop(), Some(0));
        this.scrub();
        println!(
            "{} kills, seed {}: {} records acknowledged and equal, {records} erased and {tenants} tenants, all final and gone, with the index \
             and without it, {retried} unheard requests made good once, {} reads under load, {checked} checks between kills, {listed} \
             listed, {} s, slowest start {} ms",
            this.kills,
            this.seed,
            kept.len(),
            this.reads.load(Ordering::Relaxed),
            begun.elapsed().as_secs(),
            slowest_start.as_millis()
        );
    }

    /// A moment up to `longest_millis`, spread the same way for the same seed.
    fn moment(&self, round: u64, longest_millis: u64) -> Duration {
        let mixed =
            (self.seed ^ round.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        Duration::from_millis((mixed >> 33) % longest_millis)
    }

    async fn client(&self, role: &str) -> Client {
        let file = ClientFile::load(&self.place.data().join("client.toml")).unwrap();
        Client::connect(&file.role(role).unwrap())
            .await
            .unwrap()
            .with_retry(Retry::NEVER)
    }

    async fn load_until_killed(self: &Arc<Self>, round: u64, server: Server) {
        let stop = Arc::new(AtomicBool::new(false));
        let client = self.client("uploader").await;
        let corrector = self.client("supervisor").await;
        let reader = self.client("reader").await;
        let streams: Vec<_> = (0..STREAMS)
            .map(|stream| {
                let (this, stop) = (Arc::clone(self), Arc::clone(&stop));
                let (client, corrector) = (client.clone(), corrector.clone());
                tokio::spawn(async move {
                    while !stop.load(Ordering::Acquire) {
                        let wish = this.wish(stream);
                        this.fulfil(&client, &corrector, wish).await;
                    }
                })
            })
            .collect();
        let reading = tokio::spawn(Arc::clone(self).read_until(Arc::clone(&stop), reader));
        let hands = self.hands().await;
        let (this, of_others, until) = (Arc::clone(self), hands.clone(), Arc::clone(&stop));
        let erasing = tokio::spawn(async move { this.erase_until(&until, of_others).await });
        let this = Arc::clone(self);
        let turning = tokio::spawn(async move { this.turn_keys(round, hands).await });
        let longest = u64::try_from(LONGEST_LOAD.as_millis()).unwrap();
        tokio::time::sleep(Duration::from_millis(30) + self.moment(round, longest)).await;
        stop.store(true, Ordering::Release);
        server.kill();
        for stream in streams {
            stream.await.unwrap();
        }
        for other in [reading, erasing, turning] {
            other.await.unwrap();
        }
    }

    /// Reads what was acknowledged so far, newest first, beside what is written.
    async fn read_until(self: Arc<Self>, stop: Arc<AtomicBool>, client: Client) {
        while !stop.load(Ordering::Acquire) {
            let newest = self.book.acknowledged.lock().await.iter().next_back().map(owned);
            let Some((id, kept)) = newest else {
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            };
            match check(&client, &id, &kept).await {
                Ok(()) => drop(self.reads.fetch_add(1, Ordering::Relaxed)),
                Err(error) if passes(&error) => {}
                Err(error) if is_gone(&error) && self.is_doomed(&id).await => {}
                Err(error) => panic!("{id}: {error}"),
            }
        }
    }

    /// The next thing that a stream wants.
    fn wish(&self, stream: u64) -> Wish {
        let number = self.book.names.fetch_add(1, Ordering::Relaxed);
        let name = format!("crash-{}-{number}", self.seed);
        let noise = |size: usize, salt: u64| Noise {
            size,
            seed: number << 8 | salt,
        };
        let size = usize::try_from(number * 7_919 % 150_000).unwrap() + 1;
        let what = match (stream, number % 5) {
            (0, 4) => What::Recording(noise(9 << 20, 0)),
            (0, _) => What::Recording(noise(size, 0)),
            (1, _) => What::Message(noise(size % 3_000 + 1, 0)),
            (2, _) => What::Batch((0..20).map(|salt| noise(200, salt)).collect()),
            (3, 4) => What::Resumable(noise(9 << 20, 0)),
            (3, _) => What::Resumable(noise(size * 4, 0)),
            (4, _) => What::Corrected(noise(size % 5_000 + 1, 0)),
            _ => What::Message(noise(100, 0)),
        };
        Wish {
            name,
            what,
            promised: Arc::default(),
        }
    }

    /// Tries once; what was not answered is remembered for later.
    async fn fulfil(&self, client: &Client, corrector: &Client, wish: Wish) {
        match wish.perform(client, corrector).await {
            Ok(records) => self.keep(records).await,
            Err(error) if passes(&error) => self.book.unheard.lock().await.push(wish),
            Err(error) => panic!("{}: {error}", wish.name),
        }
    }

    async fn keep(&self, records: Vec<(String, Kept)>) {
        let mut acknowledged = self.book.acknowledged.lock().await;
        for (id, kept) in records {
            acknowledged.insert(id, kept);
        }
    }

    /// Every request that nobody answered is sent again: it is done once, whether or not it was done before.
    async fn make_good(&self) -> usize {
        let (client, corrector) = (self.client("uploader").await, self.client("supervisor").await);
        let reader = self.client("reader").await;
        let unheard = std::mem::take(&mut *self.book.unheard.lock().await);
        for wish in &unheard {
            let records = wish
                .perform(&client, &corrector)
                .await
                .unwrap_or_else(|e| panic!("{}: {e}", wish.name));
            let query = RecordQuery {
                conversation_id: wish.name.clone(),
                ..RecordQuery::default()
            };
            let found = list(&reader, query).await;
            assert_eq!(
                found.len(),
                records.len(),
                "{} was made more than once",
                wish.name
            );
            self.keep(records).await;
        }
        unheard.len()
    }

    /// Some of all that there is, other ones each round.
    async fn check_sample(&self, round: u64) -> usize {
        let client = self.client("reader").await;
        let kept = self.book.acknowledged.lock().await.clone();
        let step = kept.len() / 20 + 1;
        let from = usize::try_from(round).unwrap() % step;
        let sample: Vec<_> = kept.iter().skip(from).step_by(step).collect();
        for (id, kept) in &sample {
            found(check(&client, id, kept).await, id);
        }
        sample.len() + self.check_graves(&client, step).await
    }

    /// All that there is, and all that is not; returns the former.
    async fn check_all(&self) -> BTreeMap<String, Kept> {
        let client = self.client("reader").await;
        let kept = self.book.acknowledged.lock().await.clone();
        for (id, kept) in &kept {
            found(check(&client, id, kept).await, id);
        }
        self.check_graves(&client, 1).await;
        kept
    }

    /// A blob whose upload was cut before its row is an orphan, and so is what a cut group of messages left beside those that were
    /// acknowledged: their rule collects them, and nothing else may be found.
    fn scrub(&self) {
        let report = String::from_utf8(self.place.local(&["verify"]).stdout).unwrap();
        let mut findings = report
            .lines()
            .skip_while(|line| !line.starts_with("findings"))
            .skip(1);
        let orphan = |line: &str| {
            line.contains("no record names this blob")
                || line.contains("no row names some records of this blob")
        };
        assert!(findings.all(orphan), "{report}");
    }
}

/// What a killed server leaves a client with.
fn passes(error: &ClientError) -> bool {
    match error.code() {
        Some(code) => matches!(
            code,
            Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal | Code::Aborted
        ),
        None => true,
    }
}

/// What was acknowledged is there, byte for byte, whenever it is read.
async fn check(client: &Client, id: &str, kept: &Kept) -> Result<(), ClientError> {
    let mut download = client.read_recording("dev", id, 0, 0).await?;
    let descriptor = download.header().record.clone().unwrap().descriptor.unwrap();
    assert_eq!(descriptor.conversation_id, kept.conversation);
    assert_eq!(descriptor.labels.get("crash"), kept.label.as_ref(), "{id}");
    let mut content = Vec::with_capacity(kept.content.size);
    while let Some(bytes) = download.next().await? {
        content.extend_from_slice(&bytes);
    }
    assert!(content == kept.content.bytes(), "{id} came back changed");
    Ok(())
}

fn owned((id, kept): (&String, &Kept)) -> (String, Kept) {
    (id.clone(), kept.clone())
}

fn found(checked: Result<(), ClientError>, id: &str) {
    checked.unwrap_or_else(|e| panic!("{id}: {e}"));
}

async fn list(client: &Client, query: RecordQuery) -> Vec<Record> {
    let request = ListRecordsRequest {
        tenant_id: "dev".to_owned(),
        query: Some(query),
        page_size: 1_000,
        ..ListRecordsRequest::default()
    };
    client.all_records(request).try_collect().await.unwrap()
}
