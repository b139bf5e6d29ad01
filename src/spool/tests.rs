use std::sync::Arc;

use super::*;
use crate::{
    crypto::{context::SpoolLog, rng::SystemRng, secret::SpoolKey},
    domain::{
        clock::Timestamp,
        ids::{RecordId, VaultId},
    },
    testing::disk::{DiskFaults, FaultyDisk},
};

struct Bench {
    dir: tempfile::TempDir,
    spool: Spool,
    faults: DiskFaults,
    context: SpoolLog,
    key: Arc<SpoolKey>,
    rng: SystemRng,
}

impl Bench {
    fn new(limit: u64) -> Self {
        let (dir, rng) = (tempfile::tempdir().unwrap(), SystemRng::new());
        let faults = DiskFaults::default();
        let disk = FaultyDisk::sharing(Directory::open(dir.path()).unwrap(), &faults);
        let context = SpoolLog {
            vault: VaultId::mint(Timestamp(1), &rng).unwrap(),
            tenant: "dev".parse().unwrap(),
            record: RecordId::mint(Timestamp(1), &rng).unwrap(),
            log: 0,
            head: [3; 32],
        };
        Self {
            dir,
            spool: Spool::new(Arc::new(disk), limit),
            faults,
            context,
            key: Arc::new(SpoolKey::generate(&rng).unwrap()),
            rng,
        }
    }

    fn create(&self) -> SealedLog {
        let key = Arc::clone(&self.key);
        SealedLog::create(
            &self.spool,
            "log".into(),
            self.context.clone(),
            key,
            b"head",
            &self.rng,
        )
        .unwrap()
    }

    fn append(&self, log: &mut SealedLog, records: &[&[u8]]) {
        log.append(&self.spool, records, &self.rng).unwrap();
    }

    fn sync(&self, log: &mut SealedLog) {
        log.sync(&self.spool, &self.rng).unwrap();
    }

    fn open(&self) -> Result<(SealedLog, Vec<Vec<u8>>), SpoolError> {
        let mut found = Vec::new();
        let key = Arc::clone(&self.key);
        let log = SealedLog::open(&self.spool, "log".into(), self.context.clone(), key, |record| {
            found.push(record.to_vec());
            Ok(())
        })?;
        Ok((log, found))
    }

    fn bytes(&self) -> Vec<u8> {
        std::fs::read(self.dir.path().join("log")).unwrap()
    }

    fn write(&self, bytes: &[u8]) {
        std::fs::write(self.dir.path().join("log"), bytes).unwrap();
    }
}

#[test]
fn records_come_back_in_order_and_more_can_follow() {
    let bench = Bench::new(1 << 20);
    let mut log = bench.create();
    bench.append(&mut log, &[b"one", b"two"]);
    bench.sync(&mut log);
    log.close(&bench.spool);
    let (mut log, found) = bench.open().unwrap();
    assert_eq!(found, [b"one", b"two"]);
    bench.append(&mut log, &[b"three"]);
    let mut read = Vec::new();
    log.read_all(&bench.spool, |r| {
        read.push(r.to_vec());
        Ok(())
    })
    .unwrap();
    assert_eq!(read, [b"one".to_vec(), b"two".to_vec(), b"three".to_vec()]);
    assert_eq!(bench.spool.used(), bench.bytes().len() as u64);
    log.remove(&bench.spool).unwrap();
    assert_eq!((bench.spool.used(), bench.spool.names().unwrap().len()), (0, 0));
}

#[test]
fn a_torn_end_is_cut_wherever_it_was_torn_and_what_was_durable_is_there() {
    let bench = Bench::new(1 << 20);
    let mut log = bench.create();
    bench.append(&mut log, &[b"one"]);
    bench.sync(&mut log);
    let durable = bench.bytes().len();
    bench.append(&mut log, &[b"two", b"three"]);
    let whole = bench.bytes();
    for end in durable..whole.len() {
        for filler in [&[][..], &[0; 100], &[0xa5; 100]] {
            bench.write(&[&whole[..end], filler].concat());
            let (mut log, found) = bench.open().unwrap();
            assert!(!found.is_empty() && found.len() < 3, "{end}");
            bench.append(&mut log, &[b"again"]);
            bench.sync(&mut log);
            let (_, found) = bench.open().unwrap();
            assert_eq!(found.last().unwrap(), b"again");
        }
    }
}

#[test]
fn a_flipped_byte_before_the_mark_is_damage_and_never_other_data() {
    let bench = Bench::new(1 << 20);
    let mut log = bench.create();
    let records: [&[u8]; 3] = [b"one", b"two", b"three"];
    for record in records {
        bench.append(&mut log, &[record]);
        bench.sync(&mut log);
    }
    let whole = bench.bytes();
    let marks = 12..12 + 128;
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x10;
        bench.write(&flipped);
        match bench.open() {
            Ok((_, found)) => {
                assert_eq!(found, records, "{at}");
                // A bare head is bound by whoever reads it: its digest is in every context.
                assert!(marks.contains(&at) || (8..12).contains(&at), "{at}");
            }
            Err(SpoolError::Damaged) => assert!(!marks.contains(&at), "{at}"),
            Err(other) => panic!("{at}: {other}"),
        }
    }
    for end in 0..whole.len() {
        bench.write(&whole[..end]);
        assert!(matches!(bench.open(), Err(SpoolError::Damaged)), "{end}");
    }
}

#[test]
fn another_log_or_key_opens_nothing() {
    let mut bench = Bench::new(1 << 20);
    let mut log = bench.create();
    bench.append(&mut log, &[b"one"]);
    bench.sync(&mut log);
    bench.context.log = 1;
    assert!(matches!(bench.open(), Err(SpoolError::Damaged)));
    bench.context.log = 0;
    bench.context.head = [4; 32];
    assert!(matches!(bench.open(), Err(SpoolError::Damaged)));
}

#[test]
fn a_full_spool_takes_nothing_and_loses_nothing() {
    let bench = Bench::new(600);
    let mut log = bench.create();
    bench.append(&mut log, &[&[1; 100]]);
    let refused = log.append(&bench.spool, &[&[2; 400]], &bench.rng);
    assert!(matches!(refused, Err(SpoolError::Full)));
    bench.append(&mut log, &[&[3; 100]]);
    bench.sync(&mut log);
    assert_eq!(bench.open().unwrap().1, [vec![1; 100], vec![3; 100]]);
}

#[test]
fn a_disk_that_fails_in_the_middle_of_a_write_leaves_no_trace() {
    let bench = Bench::new(1 << 20);
    let mut log = bench.create();
    bench.append(&mut log, &[b"one"]);
    for cut in [0, 3, 40, 70] {
        bench.faults.fail_next_write_after(cut);
        let refused = log.append(&bench.spool, &[b"lost", b"also lost"], &bench.rng);
        assert!(matches!(refused, Err(SpoolError::Full)), "{cut}");
    }
    bench.append(&mut log, &[b"kept"]);
    bench.sync(&mut log);
    assert_eq!(bench.open().unwrap().1, [b"one".to_vec(), b"kept".to_vec()]);
}

#[test]
fn what_a_failed_sync_left_in_doubt_is_given_up() {
    let bench = Bench::new(1 << 20);
    let mut log = bench.create();
    bench.append(&mut log, &[b"one"]);
    bench.sync(&mut log);
    bench.append(&mut log, &[b"two"]);
    bench.faults.fail_next_sync();
    assert!(log.sync(&bench.spool, &bench.rng).is_err());
    log.forget_unsynced(&bench.spool).unwrap();
    assert_eq!(bench.open().unwrap().1, [b"one"]);
}

#[test]
fn names_are_read_back_and_strangers_are_not() {
    let upload = RecordId::mint(Timestamp(1), &SystemRng::new()).unwrap();
    assert_eq!(parse_name(&journal_name(&upload)), Some(Named::Journal(upload)));
    assert_eq!(
        parse_name(&pieces_name(&upload, 70)),
        Some(Named::Pieces(upload, 70))
    );
    for bad in [
        "",
        "x",
        ".1",
        &format!("{upload}."),
        &format!("{upload}.01"),
        &format!("{upload}.+1"),
    ] {
        assert_eq!(parse_name(bad), None, "{bad}");
    }
}
