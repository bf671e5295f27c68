"""Every key that the project adds to Detectron2's config, its default and where it comes from."""

from detectron2.config import CfgNode


def add_atss_config(cfg):
    """Add the keys below to a Detectron2 config."""
    cfg.MODEL.ATSS = atss = CfgNode()

    # Name of the head, in ATSS_HEAD_REGISTRY.
    atss.HEAD = "ATSSHead"
    # Number of classes, without background. 0: taken from the dataset.
    atss.NUM_CLASSES = 0
    # Names of the classes. Filled in from the dataset and saved with config.yaml: the demo then needs no dataset.
    atss.CLASS_NAMES = []
    # Feature maps of the backbone that the head works on, finest first (section 4.1: P3 to P7).
    atss.IN_FEATURES = ["p3", "p4", "p5", "p6", "p7"]

    # 3x3 convolutions in each of the two towers, and the normalisation after each: a name of Detectron2's, "" for none.
    atss.NUM_CONVS = 4
    atss.NORM = "GN"
    # Score that every class starts from (RetinaNet).
    atss.PRIOR_PROB = 0.01

    # Anchors of a cell: side of the square one in strides (section 3.1: 8), heights / widths at equal area, sizes an
    # octave.
    atss.ANCHOR_SCALE = 8.0
    atss.ASPECT_RATIOS = [1.0]
    atss.SCALES_PER_OCTAVE = 1
    # Where a cell's centre lies, in strides from its corner.
    atss.ANCHOR_OFFSET = 0.5

    # Rule that chooses positives, in ASSIGNER_REGISTRY, and its k: candidates of an object a level (section 4.3).
    atss.ASSIGNER = "ATSSAssigner"
    atss.TOPK = 9
    # How it runs: "torch" everywhere, "triton" on CUDA GPUs, "auto" triton on CUDA and torch elsewhere. The matches are
    # the same.
    atss.ASSIGNER_BACKEND = "auto"
    # Anchors in crowd regions (iscrowd) that match nothing take no part in the loss. The paper trains them as
    # background.
    atss.IGNORE_CROWD = False

    # What the box prediction means: deltas "box" or distances "point" (section 3.1), and the factors of the deltas.
    atss.BOX_CODING = "box"
    atss.BOX_CODING_WEIGHTS = [10.0, 10.0, 5.0, 5.0]

    # Losses (section 4.1 and the paper's code).
    atss.FOCAL_LOSS_ALPHA = 0.25
    atss.FOCAL_LOSS_GAMMA = 2.0
    atss.BOX_LOSS_WEIGHT = 2.0

    # Inference (the paper's code): class score to take part, boxes a level, IoU of non-maximum suppression.
    # The number of boxes a picture is Detectron2's TEST.DETECTIONS_PER_IMAGE.
    atss.SCORE_THRESH_TEST = 0.05
    atss.TOPK_CANDIDATES_TEST = 1000
    atss.NMS_THRESH_TEST = 0.6

    # COCO-format datasets to register: [name, annotation file, picture folder] each.
    cfg.DATASETS.REGISTER = []

    # "SGD", as in the paper, or "AdamW", which small models trained from random weights prefer.
    cfg.SOLVER.OPTIMIZER = "SGD"
