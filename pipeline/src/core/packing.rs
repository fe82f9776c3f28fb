//! Packing: a part's items into pages. Fines together, lumps alone.
//!
//! The result follows from the part and the job alone, so two routers pack alike, and the rows they
//! make have the same names and contents.

use std::sync::Arc;

use super::id::PageId;
use super::item::Input;
use super::lane::{Lane, Routed, SizeRule};
use super::page::PAGE_ITEMS_MAX;
use super::part::Stretch;

/// The payloads of a page's items take at most this together (the last may go over): what a worker
/// holds in memory for one page.
pub const PAGE_PAYLOAD_BYTES_MAX: usize = 1 << 20;

/// The objects of a page are at most this large together (the last may go over), so that no page
/// keeps one session busy while others are idle.
pub const PAGE_OBJECT_BYTES_MAX: u64 = 1 << 30;

/// Whether pages must keep the order of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// A page is closed where the lane changes: what max concurrency 1 promises.
    Kept,
    /// Fines may overtake lumps.
    Free,
}

/// A page to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// Its name.
    pub id: PageId,
    /// Its lane.
    pub lane: Lane,
    /// Its items, as stretches of the part.
    pub stretches: Vec<Stretch>,
}

struct Open {
    stretches: Vec<Stretch>,
    items: usize,
    payload_bytes: usize,
    object_bytes: u64,
}

impl Open {
    fn new() -> Self {
        Self {
            stretches: Vec::new(),
            items: 0,
            payload_bytes: 0,
            object_bytes: 0,
        }
    }

    fn add(&mut self, index: u32, input: &Input) {
        match self.stretches.last_mut() {
            Some(last) if last.first + last.items == index => last.items += 1,
            Some(_) | None => self.stretches.push(Stretch {
                first: index,
                items: 1,
            }),
        }
        self.items += 1;
        self.payload_bytes += input.payload_bytes();
        self.object_bytes = self
            .object_bytes
            .saturating_add(input.size_bytes().unwrap_or(0));
    }

    fn is_full(&self) -> bool {
        self.items >= PAGE_ITEMS_MAX
            || self.payload_bytes >= PAGE_PAYLOAD_BYTES_MAX
            || self.object_bytes >= PAGE_OBJECT_BYTES_MAX
    }
}

/// Packs one part. Items too large for every lane go with the fines: the worker fails them without
/// a call.
pub fn pack(part: u32, inputs: &[Arc<Input>], rule: &SizeRule, order: Order) -> Vec<Packed> {
    let mut pages: Vec<Packed> = Vec::new();
    let mut fines = Open::new();
    let mut close = |open: &mut Open, lane: Lane| {
        if open.items > 0 {
            let id = PageId::new(part, pages.len() as u32);
            let stretches = std::mem::replace(open, Open::new()).stretches;
            pages.push(Packed {
                id,
                lane,
                stretches,
            });
        }
    };
    for (index, input) in inputs.iter().enumerate() {
        let index = index as u32;
        match rule.route(input.size_bytes()) {
            Routed::To(Lane::Function) | Routed::TooLarge { .. } => {
                fines.add(index, input);
                if fines.is_full() {
                    close(&mut fines, Lane::Function);
                }
            }
            Routed::To(Lane::Container) => {
                if order == Order::Kept {
                    close(&mut fines, Lane::Function);
                }
                let mut lump = Open::new();
                lump.add(index, input);
                close(&mut lump, Lane::Container);
            }
        }
    }
    close(&mut fines, Lane::Function);
    pages
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::item::{Object, Pin};
    use super::*;

    fn object(size_bytes: u64) -> Arc<Input> {
        let pin = Pin {
            etag: "e".into(),
            version: None,
        };
        Arc::new(Input::Object(Object {
            bucket: None,
            key: b"k".as_slice().into(),
            size_bytes,
            pin,
        }))
    }

    const RULE: SizeRule = SizeRule {
        function_bytes_max: Some(10),
        container: Some(Some(1000)),
    };

    fn shape(sizes: &[u64], order: Order) -> Vec<(Lane, Vec<(u32, u32)>)> {
        let inputs: Vec<_> = sizes.iter().map(|size| object(*size)).collect();
        let pages = pack(0, &inputs, &RULE, order);
        let stretch = |s: &Stretch| (s.first, s.items);
        pages
            .iter()
            .map(|p| (p.lane, p.stretches.iter().map(stretch).collect()))
            .collect()
    }

    #[test]
    fn lumps_go_alone_and_fines_fall_through_together() {
        assert_eq!(
            shape(&[1, 99, 2, 3], Order::Free),
            [
                (Lane::Container, vec![(1, 1)]),
                (Lane::Function, vec![(0, 1), (2, 2)])
            ]
        );
    }

    #[test]
    fn kept_order_closes_a_page_where_the_lane_changes() {
        assert_eq!(
            shape(&[1, 99, 2], Order::Kept),
            [
                (Lane::Function, vec![(0, 1)]),
                (Lane::Container, vec![(1, 1)]),
                (Lane::Function, vec![(2, 1)])
            ]
        );
    }

    #[test]
    fn what_no_lane_takes_goes_with_the_fines_to_be_failed_there() {
        assert_eq!(
            shape(&[5000], Order::Free),
            [(Lane::Function, vec![(0, 1)])]
        );
    }

    proptest! {
        #[test]
        fn every_item_is_in_exactly_one_page_of_its_lane(
            sizes in proptest::collection::vec(0u64..30, 0..500),
            kept: bool,
        ) {
            let order = if kept { Order::Kept } else { Order::Free };
            let inputs: Vec<_> = sizes.iter().map(|size| object(*size)).collect();
            let mut seen = vec![0; sizes.len()];
            for (number, page) in pack(7, &inputs, &RULE, order).into_iter().enumerate() {
                prop_assert_eq!(page.id, PageId::new(7, number as u32));
                let items: u32 = page.stretches.iter().map(|s| s.items).sum();
                prop_assert!(items as usize <= PAGE_ITEMS_MAX);
                prop_assert!(page.lane == Lane::Function || items == 1);
                for index in page.stretches.iter().flat_map(|s| s.first..s.first + s.items) {
                    seen[index as usize] += 1;
                    prop_assert_eq!(RULE.route(Some(sizes[index as usize])), Routed::To(page.lane));
                }
            }
            prop_assert!(seen.iter().all(|times| *times == 1));
        }
    }
}
