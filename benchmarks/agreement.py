"""Compare the matches of our rules with those of the paper's code, anchor by anchor, on random images.

    python benchmarks/agreement.py --paper path/to/ATSS --images 1000

Two differences are set aside so that all others show:

- The paper's code counts a box from x1 to x2 as x2 - x1 + 1 pixels wide. It is given areas and IoUs without the + 1.
- Where torch.topk has to choose among equals it takes any. An image in which the last candidate of an object and the
  first that is none are equally good in float32 is skipped, and another one drawn.

Every image has an object at least, as the paper's code needs one. Anchors have exact sides, so that IoUs which are
equal in theory are equal in both. IoU runs with positives limited to the object, as there. The exit status is 1 where
an anchor differs.
"""

import argparse
import sys
from collections import Counter

import torch
from torchvision.ops import box_area, box_iou

import peers
from assigner import RULES, make_grid, random_boxes

# Aspect ratios, of which one and three anchors per location are made with sides that float32 holds.
ONE, THREE = (1.0,), (0.25, 1.0, 4.0)
COMPARED = [("atss", ONE), ("atss", THREE), ("iou", ONE), ("iou", THREE), ("scale_range", ONE), ("topk_iou", ONE)]


def main():
    args = parse_arguments()
    print(f"{'rule':>12} {'anchors per location':>20} {'images':>9} {'anchors':>10} {'positives':>10} "
          f"{'differing':>10} {'skipped':>9}")  # fmt: skip
    differing = 0
    for rule, ratios in COMPARED:
        theirs = peers.paper(args.paper, rule, args.topk, len(ratios))
        forget_added_pixel()
        found = compare(rule, ratios, theirs, args)
        print(f"{rule:>12} {len(ratios):>20} {args.images:>9} {found['anchors']:>10} {found['positives']:>10} "
              f"{found['differing']:>10} {found['skipped']:>9}", flush=True)  # fmt: skip
        differing += found["differing"]
    return 1 if differing else 0


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--paper", required=True, metavar="CHECKOUT", help="of the paper's repository, sfzhang15/ATSS")
    parser.add_argument("--images", type=int, default=1000, help="for every rule")
    parser.add_argument("--topk", type=int, default=9)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def compare(rule, ratios, theirs, args):
    """Compare a rule with anchors of these aspect ratios; `theirs` as `peers.paper` gives it.

    Returns the numbers of `images` compared and `skipped`, of `anchors`, and of those `positives` and `differing`.
    """
    generator, ours, counts = torch.Generator().manual_seed(args.seed), RULES[rule](args.topk), Counter()
    while counts["images"] < args.images:
        grid, boxes = random_image(generator, ratios)
        if has_tie(rule, grid, boxes, args.topk):
            counts["skipped"] += 1
            continue
        matches, expected = ours(grid, [boxes])[0], matches_of(theirs(grid, [boxes]))
        positives, differing = int((matches >= 0).sum()), int((matches != expected).sum())
        counts.update(images=1, anchors=len(grid), positives=positives, differing=differing)
    return counts


def random_image(generator, ratios):
    """A grid, and between 1 and 40 objects."""
    height, width, number, seed = torch.randint(0, 1 << 31, (4,), generator=generator).tolist()
    height, width, number = 32 * (2 + height % 10), 32 * (2 + width % 10), 1 + number % 40
    return make_grid(height, width, ratios, "cpu"), random_boxes(1, number, height, width, seed, "cpu")[0]


def matches_of(targets):
    """The matches (R,), as our rules give them, from what `peers.paper` returns for one image."""
    # -1 and 0 stand for ignored and background there, -2 and -1 here.
    return targets[0][0].long() - 1


def has_tie(rule, grid, boxes, topk):
    """Whether topk has to choose among equals: distances on a level for ATSS, scores for top-k IoU."""
    if rule not in ("atss", "topk_iou"):
        return False
    anchors = grid.boxes()
    offsets = (anchors[:, None, :2] + anchors[:, None, 2:]) / 2 - (boxes[:, :2] + boxes[:, 2:]) / 2
    distances = offsets.square().sum(-1).sqrt()
    if rule == "topk_iou":
        return equal_at(distances / distances.max() / 1000 - box_iou(anchors, boxes), topk)
    return any(equal_at(level, topk * grid.num_per_cell) for level in distances.split(grid.level_sizes))


def equal_at(values, k):
    """Whether in a column of `values` the kth smallest and the one after it are equal."""
    if len(values) <= k:
        return False
    last, following = values.topk(k + 1, dim=0, largest=False).values[k - 1 :]
    return bool((last == following).any())


def forget_added_pixel():
    """Give the paper's code areas and IoUs of boxes that have no added pixel."""
    loss = sys.modules["atss_core.modeling.rpn.atss.loss"]
    loss.boxlist_iou = lambda first, second: box_iou(first.bbox, second.bbox)
    sys.modules["atss_core.structures.bounding_box"].BoxList.area = lambda boxes: box_area(boxes.bbox)


if __name__ == "__main__":
    sys.exit(main())
