mod world;

use futures_util::FutureExt;
use proptest::prelude::*;
use tokio::sync::Semaphore;

use self::world::{Memory, runtime, runtime_drawing};
use super::*;
use crate::core::job::{CsvHeaders, Location};
use crate::core::time::Tick;

fn stores(input: &Arc<Memory>, key: &[u8]) -> Stores {
    Stores {
        input: input.clone(),
        input_prefix: key.to_vec(),
        scratch: Memory::of([]),
        scratch_prefix: b"parts/".to_vec(),
    }
}

fn file() -> Location {
    Location::Path("/data/file".into())
}

fn csv() -> InputSpec {
    InputSpec::Csv {
        file: file(),
        headers: CsvHeaders::FirstRow,
        delimiter: b',',
    }
}

async fn open(
    spec: &InputSpec,
    stores: &Stores,
    cursor: Cursor,
    items: usize,
) -> Result<Source, SourceError> {
    let mut source = Source::open(spec, stores, cursor, runtime().1).await?;
    source.limits.items = items;
    Ok(source)
}

/// All parts in one pass, and what ended it.
async fn read_all(
    spec: &InputSpec,
    stores: &Stores,
    items: usize,
) -> (Vec<Draft>, Result<(), SourceError>) {
    let mut drafts = Vec::new();
    let mut source = match open(spec, stores, Cursor::default(), items).await {
        Ok(source) => source,
        Err(error) => return (drafts, Err(error)),
    };
    loop {
        match source.next_part().await {
            Ok(Some(draft)) => drafts.push(draft),
            Ok(None) => return (drafts, Ok(())),
            Err(error) => {
                assert_eq!(
                    source.next_part().await,
                    Err(error.clone()),
                    "it stays ended"
                );
                return (drafts, Err(error));
            }
        }
    }
}

fn items(drafts: &[Draft]) -> Vec<Arc<Input>> {
    drafts
        .iter()
        .flat_map(|draft| draft.inputs.iter().cloned())
        .collect()
}

fn values(drafts: &[Draft]) -> Vec<String> {
    items(drafts).iter().map(|input| input.to_json()).collect()
}

/// Memory never waits, so no runtime is needed.
fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("memory never waits")
}

async fn gzip(bytes: &[u8]) -> Vec<u8> {
    use tokio::io::AsyncWriteExt;
    let mut encoder = async_compression::tokio::write::GzipEncoder::new(Vec::new());
    encoder.write_all(bytes).await.expect("memory");
    encoder.shutdown().await.expect("memory");
    encoder.into_inner()
}

/// An input of any kind with a few dozen items, and where it lies.
fn any_input() -> impl Strategy<Value = (InputSpec, Stores)> {
    let count = 0..40_usize;
    (count, 0..9_u8, any::<[bool; 2]>()).prop_map(|(count, kind, [packed, mark])| {
        let rows = |row: &dyn Fn(usize) -> String, between: &str| {
            (0..count).map(row).collect::<Vec<_>>().join(between)
        };
        let (spec, text) = match kind {
            0 => {
                let (start, end) = (-7, -7 + count as i64);
                (InputSpec::Range { start, end }, String::new())
            }
            1 => {
                let inline = (0..count).map(|n| format!("{{\n\"n\": {n}}}")).collect();
                (InputSpec::Inline(inline), String::new())
            }
            2 | 3 => (InputSpec::Objects(file()), String::new()),
            4 => (
                InputSpec::Jsonl(file()),
                rows(&|n| format!(" {{\"n\":{n}}}"), "\r\n\n"),
            ),
            5 => {
                let text = rows(&|n| format!("{n},\"x\n{n}\""), "\n");
                (csv(), format!("a,b,c\n{text}"))
            }
            6 | 7 => {
                let text = rows(&|n| format!("{{\"n\":\n {n}}}"), "\n , ");
                (InputSpec::Json(file()), format!("[\n{text}] "))
            }
            _ => {
                let text = rows(&|n| format!("\"k{n}\" : [{n}]"), ",");
                (InputSpec::Json(file()), format!("{{{text}}}\n"))
            }
        };
        let memory = Memory::of([]);
        if matches!(spec, InputSpec::Objects(_)) {
            for n in 0..count {
                let key = [b"in/".to_vec(), vec![0xff; n % 3], n.to_string().into()].concat();
                memory.insert(&key, Bytes::from(vec![b'x'; n]));
                memory.insert(&[&*key, b"/"].concat(), Bytes::new());
            }
            memory.insert(b"other", Bytes::from_static(b"x"));
            return (spec, stores(&memory, b"in/"));
        }
        let text = if mark {
            format!("\u{feff}{text}")
        } else {
            text
        };
        let bytes = if packed {
            now(gzip(text.as_bytes()))
        } else {
            text.into_bytes()
        };
        memory.insert(b"file", bytes.into());
        (spec, stores(&memory, b"file"))
    })
}

proptest! {
    #[test]
    fn reading_from_any_cursor_gives_the_same_parts_as_one_pass(
        (spec, stores) in any_input(),
        part_items in 1_usize..12,
    ) {
        let (drafts, end) = now(read_all(&spec, &stores, part_items));
        prop_assert_eq!(end, Ok(()));
        let mut cursor = Cursor::default();
        for draft in &drafts {
            let text = serde_json::to_string(&cursor).expect("cursors serialise");
            let kept = serde_json::from_str(&text).expect("it was written so");
            let mut source = now(open(&spec, &stores, kept, part_items)).expect("it is there");
            let again = now(source.next_part()).expect("it was read before");
            prop_assert_eq!(again.as_ref(), Some(draft));
            cursor = draft.cursor.clone();
        }
        let mut source = now(open(&spec, &stores, cursor.clone(), part_items)).expect("there");
        prop_assert_eq!(now(source.next_part()), Ok(None));
        prop_assert_eq!(cursor.items, items(&drafts).len() as u64);
    }

    #[test]
    fn every_part_loads_as_it_was_frozen(
        (spec, stores) in any_input(),
        part_items in 1_usize..12,
    ) {
        let (drafts, _) = now(read_all(&spec, &stores, part_items));
        let last = drafts.last().map(|draft| draft.cursor.clone()).unwrap_or_default();
        for (number, draft) in drafts.iter().enumerate() {
            prop_assert_eq!(draft.part.number as usize, number);
            prop_assert!(draft.inputs.len() <= part_items);
            for cursor in [&draft.cursor, &last] {
                let loaded = now(load_part(&spec, &stores, cursor, &draft.part));
                prop_assert_eq!(loaded.as_ref(), Ok(&draft.inputs));
            }
        }
    }
}

#[test]
fn plain_files_and_ranges_are_not_copied_and_everything_else_is() {
    let memory = Memory::of([(b"a", b"1\n2\n"), (b"z", &now(gzip(b"1\n2\n")))]);
    let place = |spec: &InputSpec, key: &[u8]| {
        let (drafts, _) = now(read_all(spec, &stores(&memory, key), 10));
        drafts[0].part.place.clone()
    };
    let frozen = Place::Frozen {
        name: "00000000-0000000000000000.jsonl.zst".into(),
    };
    assert!(matches!(
        place(&InputSpec::Jsonl(file()), b"a"),
        Place::Slice {
            start: 0,
            end: 4,
            line: 1,
            ..
        }
    ));
    assert_eq!(place(&InputSpec::Jsonl(file()), b"z"), frozen);
    assert_eq!(place(&InputSpec::Inline(vec!["1".into()]), b""), frozen);
    assert_eq!(place(&InputSpec::Objects(file()), b""), frozen);
    assert_eq!(
        place(&InputSpec::Range { start: 5, end: 7 }, b""),
        Place::Numbers { first: 5 }
    );
}

#[test]
fn a_bad_record_in_the_middle_comes_after_all_items_before_it() {
    let memory = Memory::of([(b"rows.jsonl", b"1\n2\n3\n4\n5\nbroken\n7\n")]);
    let stores = stores(&memory, b"rows.jsonl");
    let (drafts, end) = now(read_all(&InputSpec::Jsonl(file()), &stores, 2));
    assert_eq!(values(&drafts), ["1", "2", "3", "4", "5"]);
    let error = end.expect_err("line 6 is broken");
    assert!(!error.is_retryable());
    assert_eq!(
        error.to_string(),
        "rows.jsonl: line 6, column 1: this is not JSON: expected value; \
         each line must hold one whole JSON value"
    );
}

#[test]
fn a_file_that_changed_is_neither_read_on_nor_loaded() {
    let memory = Memory::of([(b"a", b"1\n2\n3\n")]);
    let stores = stores(&memory, b"a");
    let spec = InputSpec::Jsonl(file());
    let mut source = now(open(&spec, &stores, Cursor::default(), 2)).expect("it is there");
    let draft = now(source.next_part())
        .expect("it is good")
        .expect("it has items");
    memory.insert(b"a", Bytes::from_static(b"1\n2\n4\n"));
    let changed = SourceError::Changed { file: "a".into() };
    let again = now(open(&spec, &stores, draft.cursor.clone(), 2)).err();
    assert_eq!(again, Some(changed.clone()));
    let loaded = now(load_part(&spec, &stores, &draft.cursor, &draft.part));
    assert_eq!(loaded, Err(changed));
}

#[test]
fn an_input_that_is_not_there_says_so() {
    let stores = stores(&Memory::of([]), b"in/rows.csv");
    let error = now(open(&csv(), &stores, Cursor::default(), 2)).err();
    let error = error.expect("there is no file").to_string();
    assert_eq!(
        error,
        "in/rows.csv is not there; check its name, or put it back and redrive the run"
    );
}

#[test]
fn empty_inputs_have_no_parts_but_an_empty_json_file_is_cut_short() {
    let memory = Memory::of([(b"empty", b"")]);
    let stores = stores(&memory, b"empty");
    for spec in [
        InputSpec::Jsonl(file()),
        csv(),
        InputSpec::Inline(Vec::new()),
    ] {
        assert_eq!(now(read_all(&spec, &stores, 2)), (Vec::new(), Ok(())));
    }
    let (_, end) = now(read_all(&InputSpec::Json(file()), &stores, 2));
    assert!(
        end.expect_err("no array")
            .to_string()
            .contains("the JSON is cut short here")
    );
}

#[test]
fn a_connection_closed_early_is_no_end_of_the_file() {
    let packed = now(gzip(b"1\n2\n3\n"));
    let memory = Memory::of([(b"a", b"1\n2\n3\n"), (b"z", &packed)]);
    for key in [b"a", b"z"] {
        let stores = stores(&memory, key);
        let spec = InputSpec::Jsonl(file());
        memory.cut_reads(Some(4));
        let (_, end) = now(read_all(&spec, &stores, 2));
        let error = end.expect_err("not all bytes came");
        assert!(error.is_retryable(), "{error}");
        memory.cut_reads(None);
        let (drafts, _) = now(read_all(&spec, &stores, 2));
        assert_eq!(values(&drafts), ["1", "2", "3"]);
        memory.cut_reads(Some(1));
        let draft = &drafts[0];
        if matches!(draft.part.place, Place::Slice { .. }) {
            let loaded = now(load_part(&spec, &stores, &draft.cursor, &draft.part));
            assert!(loaded.expect_err("not all bytes came").is_retryable());
        }
    }
}

#[test]
fn a_compressed_file_that_is_broken_is_bad_input() {
    let mut bytes = now(gzip(&b"1\n".repeat(1000)));
    bytes.truncate(bytes.len() - 4);
    let stores = stores(&Memory::of([(b"z", &bytes)]), b"z");
    let (_, end) = now(read_all(&InputSpec::Jsonl(file()), &stores, 10_000));
    let error = end.expect_err("it is cut short").to_string();
    assert!(
        error.starts_with("z: the compressed file is broken or cut short"),
        "{error}"
    );
}

#[test]
fn a_frozen_part_that_is_lost_or_junk_is_refused() {
    let stores = stores(&Memory::of([]), b"");
    let spec = InputSpec::Inline(vec!["1".into()]);
    let (drafts, _) = now(read_all(&spec, &stores, 2));
    let part = &drafts[0].part;
    let key = b"parts/00000000-0000000000000000.jsonl.zst";
    now(stores.scratch.put(key, Bytes::from_static(b"junk"))).expect("memory takes all");
    let error = now(load_part(&spec, &stores, &drafts[0].cursor, part));
    assert!(
        matches!(error, Err(SourceError::Refused { .. })),
        "{error:?}"
    );
    let emptied = Stores {
        scratch: Memory::of([]),
        ..stores
    };
    let error = now(load_part(&spec, &emptied, &drafts[0].cursor, part));
    assert!(
        matches!(error, Err(SourceError::NotFound { .. })),
        "{error:?}"
    );
}

#[test]
fn a_part_closes_when_its_items_are_large() {
    let row = format!("\"{}\"\n", "x".repeat(PART_BYTES_MAX / 3 + 1));
    let stores = stores(&Memory::of([(b"a", row.repeat(5).as_bytes())]), b"a");
    let (drafts, end) = now(read_all(&InputSpec::Jsonl(file()), &stores, 10_000));
    assert_eq!(end, Ok(()));
    let counts: Vec<u32> = drafts.iter().map(|draft| draft.part.items).collect();
    assert_eq!(counts, [3, 2]);
}

#[test]
fn a_range_up_to_the_greatest_number_ends() {
    let (start, end) = (i64::MAX - 3, i64::MAX);
    let stores = stores(&Memory::of([]), b"");
    let (drafts, _) = now(read_all(&InputSpec::Range { start, end }, &stores, 2));
    assert_eq!(items(&drafts).len(), 3);
    let (none, _) = now(read_all(&InputSpec::Range { start: 3, end: 1 }, &stores, 2));
    assert_eq!(none, []);
}

#[tokio::test]
async fn a_slow_listing_gives_its_first_items_after_a_second_and_is_asked_for_no_page_twice() {
    let memory = Memory::of([]);
    for n in 0..1_500 {
        memory.insert(format!("{n:04}").as_bytes(), Bytes::from_static(b"x"));
    }
    memory.pages.forget_permits(Semaphore::MAX_PERMITS - 1);
    let (clock, runtime) = runtime();
    let stores = stores(&memory, b"");
    let spec = InputSpec::Objects(file());
    let source = Source::open(&spec, &stores, Cursor::default(), runtime).await;
    let mut source = source.expect("a listing is always there");
    let mut asked = memory.asked.subscribe();

    // The second page hangs; a second passes on the clock.
    let pass = async {
        asked
            .wait_for(|asked| *asked == 2)
            .await
            .expect("the store lives");
        clock.0.send_replace(Tick(0) + PART_OPEN_MAX);
    };
    let (first, ()) = tokio::join!(source.next_part(), pass);
    let first = first.expect("the listing works").expect("it has items");
    assert_eq!(first.part.items, 1_000);

    memory.pages.add_permits(1);
    let second = source
        .next_part()
        .await
        .expect("the listing works")
        .expect("it has items");
    assert_eq!(second.part.items, 500);
    assert_eq!(source.next_part().await, Ok(None));
    assert_eq!(*memory.asked.borrow(), 2);
}

#[test]
fn a_part_may_be_read_in_a_task_that_moves_between_threads() {
    fn moves<T: Send>(future: T) -> T {
        future
    }
    let stores = stores(&Memory::of([]), b"");
    let spec = InputSpec::Range { start: 0, end: 1 };
    let source = now(moves(Source::open(
        &spec,
        &stores,
        Cursor::default(),
        runtime().1,
    )));
    let mut source = source.expect("a range is always there");
    let draft = now(moves(source.next_part()))
        .expect("it is good")
        .expect("it has an item");
    let loaded = now(moves(load_part(&spec, &stores, &draft.cursor, &draft.part)));
    assert_eq!(loaded, Ok(draft.inputs));
}

#[test]
fn two_readers_of_one_run_do_not_overwrite_each_others_parts() {
    let memory = Memory::of([(b"a", b"1")]);
    let stores = stores(&memory, b"");
    let spec = InputSpec::Objects(file());
    let first_part = |spec: &InputSpec, draw: u64| {
        let (_, runtime) = runtime_drawing(draw);
        let source = now(Source::open(spec, &stores, Cursor::default(), runtime));
        let mut source = source.expect("it is there");
        let draft = now(source.next_part()).expect("it is good");
        draft.expect("it has items")
    };
    let winner = first_part(&spec, 1);
    now(stores.input.put(b"b", Bytes::from_static(b"2"))).expect("memory takes all");
    let loser = first_part(&spec, 2);
    assert_ne!(winner.inputs, loser.inputs);
    let loaded = now(load_part(&spec, &stores, &winner.cursor, &winner.part));
    assert_eq!(loaded, Ok(winner.inputs));
}
