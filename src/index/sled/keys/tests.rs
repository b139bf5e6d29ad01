use proptest::prelude::*;

use super::*;
use crate::index::suite::sample::Dice;

fn table(key: &Key) -> std::mem::Discriminant<Key> {
    std::mem::discriminant(key)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn keys_come_back_and_keep_their_order(seed in any::<u64>()) {
        let mut dice = Dice(seed);
        let keys: Vec<Key> = (0..20).map(|_| dice.key().unwrap()).collect();
        for a in &keys {
            if !matches!(a, Key::Meta(_)) {
                prop_assert_eq!(&decode(&encode(a)).unwrap(), a);
            }
            for b in keys.iter().filter(|b| table(a) == table(b)) {
                prop_assert_eq!(encode(a).cmp(&encode(b)), a.cmp(b), "{:?} {:?}", a, b);
                prop_assert!(a == b || !encode(a).starts_with(&encode(b)));
            }
        }
    }

    #[test]
    fn any_text_keeps_its_order(a in ".{0,6}", b in "[\u{0}\u{1}\u{2}a]{0,4}", c in "[\u{0}\u{1}\u{2}a]{0,4}") {
        let key = |class: &String| Key::OpenPage("t".parse().unwrap(), class.clone(), 1);
        for (x, y) in [(&a, &b), (&b, &c), (&c, &a)] {
            prop_assert_eq!(encode(&key(x)).cmp(&encode(&key(y))), x.cmp(y));
            prop_assert_eq!(decode(&encode(&key(x))).unwrap(), key(x));
        }
    }

    #[test]
    fn any_bytes_are_a_key_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        if let Ok(key) = decode(&bytes) {
            prop_assert_eq!(encode(&key), bytes);
        }
    }
}

#[test]
fn persisted_keys_stay_what_they_are() {
    let tenant = || "a-b".parse().unwrap();
    let hex = |key: Key| hex::encode(encode(&key));
    assert_eq!(hex(Key::Meta("format")), "01666f726d617400");
    assert_eq!(hex(Key::Epoch(1)), "020000000000000001");
    let operation = "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap();
    assert_eq!(
        hex(Key::KeyOperation(operation)),
        "0401890a5dac96774bbcceb302099a8057"
    );
    assert_eq!(hex(Key::TenantKey(tenant(), 2)), "21612d62000000000000000002");
    assert_eq!(
        hex(Key::OpenPage(tenant(), String::new(), 202_611)),
        "24612d62000000031773"
    );
    let record = "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap();
    assert_eq!(
        hex(Key::Tombstone(tenant(), record)),
        "52612d620001890a5dac96774bbcceb302099a8057"
    );
    assert_eq!(hex(Key::Purge(tenant(), "a".to_owned())), "54612d62006100");
    assert_eq!(
        hex(Key::Identifier(tenant(), [7; 32])),
        format!("40612d6200{}", "07".repeat(32))
    );
}
