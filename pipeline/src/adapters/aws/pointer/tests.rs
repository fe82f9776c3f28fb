use super::*;
use crate::adapters::aws::lambda::testing::{call_of, value};
use crate::adapters::memory::MemoryObjects;

#[tokio::test]
async fn an_event_put_aside_is_found_where_its_pointer_says() {
    let store = Arc::new(MemoryObjects::new());
    let pointers = Pointers::new(store.clone(), "results", b"scratch/brave-heron-1/".to_vec());
    let call = call_of(vec![value("1")]);
    let items: Vec<&CallItem> = call.items.iter().collect();
    let sent = pointers.put(&call, &items, "[1,2]".to_owned()).await;
    let sent: serde_json::Value =
        serde_json::from_str(&sent.expect("it is put")).expect("a pointer is JSON");
    let pointer = &sent["InputPointer"];
    assert_eq!(pointer["bucket"], "results");
    assert_eq!(pointer["bytes"], 5);
    let key = pointer["key"].as_str().expect("a text");
    assert!(key.starts_with("scratch/brave-heron-1/events/"), "{key}");
    let object = store.head(key.as_bytes()).await.expect("it is there");
    assert_eq!(object.size_bytes, 5);
}

#[test]
fn two_calls_share_a_name_only_if_they_carry_the_same() {
    let whole = call_of(vec![value("1"), value("2")]);
    let items: Vec<&CallItem> = whole.items.iter().collect();
    let half = name(&whole, &items[..1]);
    assert_ne!(name(&whole, &items), half);
    let mut again = whole.clone();
    again.items[0].attempt += 1;
    let items: Vec<&CallItem> = again.items.iter().collect();
    assert_ne!(name(&again, &items[..1]), half);
}
