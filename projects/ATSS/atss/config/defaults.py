"""Every key that the project adds to Detectron2's config, its default and where it comes from."""

from detectron2.config import CfgNode

from ..data.image_io import MAX_PIXELS
from ..modeling.assigners import FCOS_RANGES


def add_atss_config(cfg):
    """Add the keys below to a Detectron2 config."""
    cfg.MODEL.ATSS = atss = CfgNode()

    # The head: its name in ATSS_HEAD_REGISTRY.
    atss.HEAD = "ATSSHead"
    # Number of classes, without background. 0: taken from the dataset.
    atss.NUM_CLASSES = 0
    # Names of the classes. Filled in from the dataset and saved with config.yaml: the demo then needs no dataset.
    atss.CLASS_NAMES = []
    # Feature maps of the backbone that the head works on, finest first (section 4.1: P3 to P7).
    atss.IN_FEATURES = ["p3", "p4", "p5", "p6", "p7"]

    # The pyramid: whether P7 is computed from P6 after a ReLU, as in the paper's code; mmdetection has none.
    atss.RELU_BEFORE_P7 = True

    # The towers: 3x3 convolutions in each of the two, and whether the last of each is deformable (the paper's DCNv2
    # models).
    atss.NUM_CONVS = 4
    atss.USE_DCN_IN_TOWER = False
    # The five switches of Table 1, on in the paper's model. Normalisation in the towers: a name of Detectron2's, "" for
    # none.
    atss.NORM = "GN"
    # Loss of the box: "giou" of the decoded one, or "smooth_l1" of the deltas (their mean), and its factor: 2.0 in the
    # paper, 1.0 for smooth L1 in its RetinaNet.
    atss.BOX_LOSS = "giou"
    atss.BOX_LOSS_WEIGHT = 2.0
    # IoUAssigner alone: positives whose centre is not in their object are ignored. For all other rules that is so.
    atss.CENTER_IN_BOX = False
    # A branch that predicts how central a point lies in its object, and what that weighs in the box loss and the score.
    atss.CENTERNESS = True
    # A learnable factor of the box prediction for every level.
    atss.LEVEL_SCALARS = True
    # Score that every class starts from (RetinaNet).
    atss.PRIOR_PROB = 0.01

    # The anchors of a cell: side of the square one in strides (section 3.1: 8), heights / widths at equal area, sizes
    # an octave.
    atss.ANCHOR_SCALE = 8.0
    atss.ASPECT_RATIOS = [1.0]
    atss.SCALES_PER_OCTAVE = 1
    # Where a cell's centre lies, in strides from its corner: 0.5 in the paper, 0.0 in mmdetection.
    atss.ANCHOR_OFFSET = 0.5
    # How much wider a box from x1 to x2 is than x2 - x1, in pixels. 0: x2 is where it ends, as in Detectron2. 1: x2 is
    # its last pixel, as in the paper's code; predicted boxes then lie half a pixel further right and down, and a
    # resized box keeps its last pixel.
    atss.PIXEL_EXTENT = 0

    # The rule that chooses positives, in ASSIGNER_REGISTRY: ATSSAssigner, IoUAssigner (RetinaNet), ScaleRangeAssigner
    # (FCOS), CenterSamplingAssigner, TopKIoUAssigner.
    atss.ASSIGNER = "ATSSAssigner"
    # Their parameters, each read by the rules that have it. k: candidates of an object a level (section 4.3), or
    # anchors of an object for TopKIoUAssigner.
    atss.TOPK = 9
    # IoU below which an anchor is negative, and from which it is positive (RetinaNet).
    atss.IOU_THRESHOLDS = [0.4, 0.5]
    # Distance to the farthest side of an object, from and to, for every level, in pixels (FCOS). No end is .inf in yaml
    # files, a large number on the command line.
    atss.SCALE_RANGES = [list(pair) for pair in FCOS_RANGES]
    # How it runs: "torch" everywhere, "triton" on CUDA GPUs, "auto" triton on CUDA and torch elsewhere. The matches are
    # the same.
    atss.ASSIGNER_BACKEND = "auto"
    # Anchors in crowd regions (iscrowd) that match nothing take no part in the loss. The paper trains them as
    # background.
    atss.IGNORE_CROWD = False

    # The box prediction, and what it means: deltas "box" or distances "point" (section 3.1), and the factors of the
    # deltas.
    atss.BOX_CODING = "box"
    atss.BOX_CODING_WEIGHTS = [10.0, 10.0, 5.0, 5.0]

    # Fine-tuning: whether it may start from a checkpoint whose head does not fit, of another number of classes say:
    # what does not fit keeps its random start, and is named.
    atss.REMAKE_HEAD = False
    # Whether weights may come from a .pkl file, as those of Detectron2's model zoo do. Pickles can run code when they
    # are read; of these only numbers, texts and arrays are taken.
    atss.ALLOW_PICKLE = False

    # The losses (section 4.1 and the paper's code).
    atss.FOCAL_LOSS_ALPHA = 0.25
    atss.FOCAL_LOSS_GAMMA = 2.0
    # Where smooth L1 turns from square to linear.
    atss.SMOOTH_L1_BETA = 0.11

    # Inference (the paper's code): class score to take part, boxes per level, IoU of non-maximum suppression.
    # The number of boxes per image is Detectron2's TEST.DETECTIONS_PER_IMAGE.
    atss.SCORE_THRESH_TEST = 0.05
    atss.TOPK_CANDIDATES_TEST = 1000
    atss.NMS_THRESH_TEST = 0.6
    # Whether the boxes of a level are chosen by class score x centerness, or by class score alone, and whether the
    # final score is the root of the product, or the product. Both True in the paper's code, False in mmdetection.
    atss.TOPK_BY_CENTERNESS = True
    atss.SCORE_ROOT = True

    # Multi-scale testing, besides Detectron2's TEST.AUG.ENABLED, MIN_SIZES, MAX_SIZE (of the scales above
    # INPUT.MIN_SIZE_TEST) and FLIP. Sizes of the boxes that count at each scale: [from, to], roots of areas in pixels
    # of the resized image; empty for all.
    cfg.TEST.AUG.BOX_RANGES = []
    # How the boxes of all views are merged, into MODEL.ATSS.TOPK_CANDIDATES_TEST at most: "nms" (at the IoU of
    # MODEL.ATSS.NMS_THRESH_TEST), "vote" for means weighted by scores, or the paper's "soft_vote"; and the IoU that
    # unites boxes in both.
    cfg.TEST.AUG.MERGE = "nms"
    cfg.TEST.AUG.VOTE_THRESH = 0.66

    # Pixels that an image may have, width times height: larger ones are refused before they are decoded. The default
    # is Pillow's own bound.
    cfg.INPUT.MAX_PIXELS = MAX_PIXELS
    # Resizing of images for testing, to the last pixel: like "detectron2", "maskrcnn-benchmark" (the paper's
    # code) or "mmdetection"; see atss.data.resize.
    cfg.INPUT.RESIZE_LIKE = "detectron2"

    # A dataset in a folder, in COCO's, YOLO's or Pascal VOC's format. Its splits become the datasets <folder>_train,
    # <folder>_val and so on, and DATASETS.TRAIN and DATASETS.TEST name them, where they do not name others of them.
    cfg.DATASETS.FOLDER = ""
    # COCO-format datasets to register: [name, annotation file, image folder] each.
    cfg.DATASETS.REGISTER = []

    # Distinct images that training may find unreadable and replace by others, with a warning, before it stops; 0: it
    # stops at the first.
    cfg.DATALOADER.MAX_UNREADABLE = 0
    # Batches that training may skip, with a warning, before it stops: those whose loss or gradient is not finite, which
    # are kept in OUTPUT_DIR/skipped_batches, and those that do not fit into a GPU's memory. 0: it stops at the first.
    cfg.SOLVER.MAX_SKIPPED_BATCHES = 0
    cfg.register_renamed_key("SOLVER.MAX_LEFT_OUT", "SOLVER.MAX_SKIPPED_BATCHES")

    # The optimizer: "SGD", as in the paper, or "AdamW", which small models trained from random weights prefer.
    cfg.SOLVER.OPTIMIZER = "SGD"
    # Averaged weights: the decay of an exponential moving average, 0.999 say, which then is what is evaluated, drawn
    # and taken from checkpoints; 0 for none, as in the paper.
    cfg.SOLVER.EMA_DECAY = 0.0
    # Evaluations (TEST.EVAL_PERIOD) without a better AP after which training ends; 0 for never.
    cfg.SOLVER.EARLY_STOP = 0

    # Evaluations: whether the checkpoint of the best AP is kept, as model_best.pth.
    cfg.TEST.KEEP_BEST = False
    # Whether evaluations also give the losses on DATASETS.TEST, as validation/total_loss and so on.
    cfg.TEST.VALIDATION_LOSS = True
