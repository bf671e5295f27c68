"""The keys that the project adds to Detectron2's config, with their defaults and sources."""

from detectron2.config import CfgNode

from ..data.image_io import MAX_PIXELS
from ..modeling.assigners import FCOS_RANGES


def add_atss_config(cfg: CfgNode) -> None:
    """Add the keys below to a Detectron2 config."""
    cfg.MODEL.ATSS = atss = CfgNode()

    # The head, by its name in ATSS_HEAD_REGISTRY.
    atss.HEAD = "ATSSHead"
    # Number of classes, without background. 0 takes it from the dataset.
    atss.NUM_CLASSES = 0
    # Names of the classes. Filled in from the dataset and saved in config.yaml, so that inference needs no dataset.
    atss.CLASS_NAMES = []
    # Input feature maps of the head, finest first (section 4.1: P3 to P7).
    atss.IN_FEATURES = ["p3", "p4", "p5", "p6", "p7"]

    # The pyramid: True to apply a ReLU to P6 before P7, as in the paper's code; mmdetection has none.
    atss.RELU_BEFORE_P7 = True
    # Images are padded to multiples of this number of pixels, and of the backbone's largest stride. Models with a
    # dynamic head, whose attention sees the padding, have 128 in DynamicHead.
    atss.SIZE_DIVISIBILITY = 1

    # The dynamic head (Dai et al. 2021) between the pyramid and the head: number of blocks, 6 in its paper and 0 for
    # none; and True to begin with offsets of 0, as mmdetection does, False with random ones, as DynamicHead does.
    atss.DYHEAD_BLOCKS = 0
    atss.DYHEAD_ZERO_OFFSETS = False

    # The towers: number of 3x3 convolutions, 0 for none (after a dynamic head), and True to make the last one
    # deformable (the paper's DCNv2 models).
    atss.NUM_CONVS = 4
    atss.USE_DCN_IN_TOWER = False
    # Side of the convolutions that predict scores, boxes and centerness: 3, or 1 as in DynamicHead.
    atss.PREDICTOR_KERNEL = 3
    # The five switches of Table 1, on in the paper's model. Normalisation in the towers, by Detectron2's name; "" for
    # none.
    atss.NORM = "GN"
    # Box loss: "giou" of the decoded boxes, or "smooth_l1" averaged over the deltas; and its weight: 2.0 in the paper,
    # 1.0 for smooth L1 in its RetinaNet.
    atss.BOX_LOSS = "giou"
    atss.BOX_LOSS_WEIGHT = 2.0
    # IoUAssigner: True to ignore positives whose centre is outside their ground truth box. The other rules have no such
    # positives.
    atss.CENTER_IN_BOX = False
    # True to predict centerness, which weights the box loss and the score.
    atss.CENTERNESS = True
    # True for a learnable factor of the box prediction per level.
    atss.LEVEL_SCALARS = True
    # Initial score of every class (RetinaNet).
    atss.PRIOR_PROB = 0.01

    # The anchors of a cell: side of the square anchor in strides (section 3.1: 8), aspect ratios (height / width) at
    # equal area, sizes per octave.
    atss.ANCHOR_SCALE = 8.0
    atss.ASPECT_RATIOS = [1.0]
    atss.SCALES_PER_OCTAVE = 1
    # Position of a cell's centre, in strides from its corner: 0.5 in the paper, 0.0 in mmdetection.
    atss.ANCHOR_OFFSET = 0.5
    # Meaning of x2 and y2. 0: a box ends there, as in Detectron2. 1: its last pixel is there, and its width is
    # x2 - x1 + 1, as in the paper's code; then predicted boxes lie half a pixel further right and down, and a resized
    # box keeps its last pixel.
    atss.PIXEL_EXTENT = 0

    # Label assignment rule, by its name in ASSIGNER_REGISTRY: ATSSAssigner, IoUAssigner (RetinaNet), ScaleRangeAssigner
    # (FCOS), CenterSamplingAssigner, TopKIoUAssigner.
    atss.ASSIGNER = "ATSSAssigner"
    # k of the rules that have it: candidates per ground truth box and level (section 4.3), or positives per ground
    # truth box for TopKIoUAssigner.
    atss.TOPK = 9
    # IoUAssigner: IoU below which an anchor is negative, and from which it is positive (RetinaNet).
    atss.IOU_THRESHOLDS = [0.4, 0.5]
    # ScaleRangeAssigner, CenterSamplingAssigner: range of the distance to the farthest side of the ground truth
    # box, per level, in pixels (FCOS). Infinity is .inf in yaml files; use a large number on the command line.
    atss.SCALE_RANGES = [list(pair) for pair in FCOS_RANGES]
    # Implementation of ATSSAssigner: "torch" for every device, "triton" for CUDA GPUs, "auto" for the faster one on the
    # device. The matches are the same.
    atss.ASSIGNER_BACKEND = "auto"
    # True to ignore anchors without a match in crowd regions (iscrowd). The paper trains them as background.
    atss.IGNORE_CROWD = False

    # Box regression: "box" for deltas from the anchor, "point" for distances from its centre (section 3.1),
    # "distribution" for distributions of these distances (GFL, arXiv 2006.04388); and the weights of the deltas.
    atss.BOX_CODING = "box"
    atss.BOX_CODING_WEIGHTS = [10.0, 10.0, 5.0, 5.0]
    # Distributions: the largest distance, in strides (GFL: n).
    atss.MAX_DISTANCE = 16

    # Speed: True for feature maps in PyTorch's channels_last memory format, which most devices convolve faster. Results
    # differ by rounding.
    atss.CHANNELS_LAST = True
    # True to compile backbone and head with torch.compile, which takes minutes at the first iteration. Images of all
    # sizes share a handful of compiled graphs.
    atss.COMPILE = False

    # Fine-tuning: True to accept a checkpoint whose head does not fit, for example because of other classes. Parameters
    # that do not fit keep their random initialisation and are logged.
    atss.REMAKE_HEAD = False
    # True to accept weights in .pkl files, as in Detectron2's model zoo. Pickles can run code when they are loaded:
    # only numbers, strings and arrays are read from these.
    atss.ALLOW_PICKLE = False

    # The losses (section 4.1 and the paper's code).
    atss.FOCAL_LOSS_ALPHA = 0.25
    atss.FOCAL_LOSS_GAMMA = 2.0
    # Class loss: "focal", or "quality_focal" to train the score of a class to be the IoU of the box (GFL), in the place
    # of centerness. It has no alpha, and gamma is its beta.
    atss.CLASS_LOSS = "focal"
    # Weight of the distribution focal loss, with BOX_CODING "distribution" (GFL).
    atss.DISTRIBUTION_LOSS_WEIGHT = 0.25
    # Difference at which smooth L1 turns from quadratic to linear.
    atss.SMOOTH_L1_BETA = 0.11
    # Implementation of the losses: "torch" for every device, "triton" for CUDA GPUs, "auto" for the faster one on the
    # device. They are equal up to rounding. There is only "torch" with CLASS_LOSS "quality_focal".
    atss.LOSS_BACKEND = "auto"

    # Inference (the paper's code): minimum class score, boxes per level, IoU threshold of non-maximum suppression.
    # Detectron2's TEST.DETECTIONS_PER_IMAGE limits the boxes per image.
    atss.SCORE_THRESH_TEST = 0.05
    atss.TOPK_CANDIDATES_TEST = 1000
    atss.NMS_THRESH_TEST = 0.6
    # True to rank the boxes of a level by class score x centerness, False by class score; and True to use the
    # square root of the product as final score, False the product. Both are True in the paper's code, False in
    # mmdetection.
    atss.TOPK_BY_CENTERNESS = True
    atss.SCORE_ROOT = True
    # True to clip boxes to the image before non-maximum suppression, as in the paper's code and mmdetection, False to
    # do so at last, as in Detectron2 and DynamicHead.
    atss.CLIP_BEFORE_NMS = True

    cfg.MODEL.TIMM = timm = CfgNode()

    # Backbones of timm (MODEL.BACKBONE.NAME build_timm_fpn_backbone), by the model's name there, with the tag of its
    # weights or without: "resnet18", "convnext_tiny.fb_in22k". MODEL.PIXEL_MEAN, MODEL.PIXEL_STD and INPUT.FORMAT then
    # become those that timm has recorded for the model. Given in the file that names the model, in one that builds on
    # it, or on the command line, they are kept. MODEL.BACKBONE.FREEZE_AT works as for ResNets.
    timm.NAME = ""
    # True to start from timm's weights, which it downloads unless it has them; or the path of their file (.safetensors,
    # .pth), to start from it without network. MODEL.WEIGHTS replaces both: no weights of timm are loaded then.
    timm.PRETRAINED = False
    timm.FILE = ""
    # Highest probability of skipping a residual branch in training (stochastic depth); it grows with depth.
    timm.DROP_PATH_RATE = 0.0
    # True to store fewer activations in training and to compute them again in the backward pass.
    timm.ACTIVATION_CHECKPOINTING = False
    # True to freeze the batch normalizations, for small batches; False to train them.
    timm.FREEZE_NORM = False
    # True to normalise each feature map over its channels before the pyramid, as the detectors of Swin Transformer and
    # ConvNeXt do.
    timm.NORM_FEATURES = False

    # Multi-scale testing, with Detectron2's TEST.AUG.ENABLED, MIN_SIZES, MAX_SIZE (for the scales above
    # INPUT.MIN_SIZE_TEST) and FLIP. Range of box sizes kept at each scale: [from, to], square roots of areas in
    # pixels of the resized image; empty to keep all.
    cfg.TEST.AUG.BOX_RANGES = []
    # Merging of the boxes of all views, of which at most MODEL.ATSS.TOPK_CANDIDATES_TEST remain: "nms" (with
    # MODEL.ATSS.NMS_THRESH_TEST), "vote" for means weighted by scores, or the paper's "soft_vote"; and the IoU from
    # which voting merges two boxes.
    cfg.TEST.AUG.MERGE = "nms"
    cfg.TEST.AUG.VOTE_THRESH = 0.66

    cfg.TEST.TILE = tile = CfgNode()

    # Detection in tiles, for large images and small objects: height and width of a tile in pixels of the original
    # image, 0 for no tiles; and the share of a tile that it has in common with the next one, 0 or more and less than 1.
    # Each tile is resized as INPUT.MIN_SIZE_TEST and INPUT.MAX_SIZE_TEST, or TEST.AUG, say. An image that is no larger
    # than a tile is not divided.
    tile.SIZE = 0
    tile.OVERLAP = 0.2
    # True to detect in the whole image, too, for objects that are larger than the overlap of two tiles. TEST.AUG.MERGE
    # merges the boxes. Tiles and image give up to TEST.DETECTIONS_PER_IMAGE boxes each.
    tile.WHOLE_IMAGE = True
    # Tiles per batch; 0 for 8 on a GPU and 1 on a CPU.
    tile.BATCH_SIZE = 0

    # Maximum number of pixels of an image, width times height; larger images are refused before they are decoded. The
    # default is Pillow's limit.
    cfg.INPUT.MAX_PIXELS = MAX_PIXELS
    # What resizes training images: "pillow" for exactly Detectron2's images, or "torch", which takes a quarter of the
    # time and rounds some values differently (docs/performance.md). Evaluation and inference do not use it.
    cfg.INPUT.RESIZE_BACKEND_TRAIN = "pillow"
    # Augmentations of training images: names, or [name, {arguments}]; docs/augmentation.md lists them. Detectron2's
    # INPUT.RANDOM_FLIP, which may also be "both", and INPUT.CROP work as without.
    cfg.INPUT.AUGMENTATIONS = []
    # Resizing of test images exactly as in "detectron2", "maskrcnn-benchmark" (the paper's code) or "mmdetection"; see
    # atss.data.resize.
    cfg.INPUT.RESIZE_LIKE = "detectron2"

    # A dataset in a folder, in COCO, YOLO or Pascal VOC format. Its splits become the datasets <folder>_train,
    # <folder>_val and so on, which DATASETS.TRAIN and DATASETS.TEST take unless they already name some of them.
    cfg.DATASETS.FOLDER = ""
    # COCO-format datasets to register: [name, annotation file, image folder] each.
    cfg.DATASETS.REGISTER = []

    # Worker processes that load images, for each process of training: -1 for one per core that it may use, up to 4, and
    # 0 to load in the process itself. Results do not depend on it.
    cfg.DATALOADER.NUM_WORKERS = -1

    # Unreadable images: training replaces up to this number of distinct images by others, with a warning, and stops at
    # the next one.
    cfg.DATALOADER.MAX_UNREADABLE = 0
    # Skipped batches: training skips up to this number of batches, with a warning, and stops at the next one. A
    # batch is skipped if its loss or gradient is not finite (it is saved in OUTPUT_DIR/skipped_batches) or if it
    # does not fit into the GPU's memory.
    cfg.SOLVER.MAX_SKIPPED_BATCHES = 0
    cfg.register_renamed_key("SOLVER.MAX_LEFT_OUT", "SOLVER.MAX_SKIPPED_BATCHES")

    # The optimizer: "SGD", as in the paper, or "AdamW", for small models trained from scratch.
    cfg.SOLVER.OPTIMIZER = "SGD"
    # Learning rates of the backbone, without its pyramid: factor of the base rate; and, for backbones of timm, a
    # further factor per layer, such as 0.9, once for the last layer and most often for the first. Position tables and
    # layer scales of timm's models have no weight decay; SOLVER.WEIGHT_DECAY_NORM and SOLVER.WEIGHT_DECAY_BIAS set that
    # of norms and biases.
    cfg.SOLVER.BACKBONE_MULTIPLIER = 1.0
    cfg.SOLVER.LAYER_DECAY = 1.0
    # Mixed precision, with SOLVER.AMP.ENABLED: "float16" on CUDA GPUs, where losses are scaled so that no gradient
    # vanishes; or "bfloat16", which has the range of float32, on CPUs and newer GPUs. The weights stay float32.
    cfg.SOLVER.AMP.PRECISION = "float16"
    # Decay of an exponential moving average of the weights, such as 0.999. The averaged weights are then used for
    # evaluation, predictions and inference from checkpoints. 0 for none, as in the paper.
    cfg.SOLVER.EMA_DECAY = 0.0
    # Early stopping: training ends after this number of evaluations (TEST.EVAL_PERIOD) without a better AP; 0 for
    # never.
    cfg.SOLVER.EARLY_STOP = 0

    # Evaluations during training: True to keep the checkpoint with the best AP as model_best.pth.
    cfg.TEST.KEEP_BEST = False
    # True to also compute the losses on DATASETS.TEST, as validation/total_loss and so on.
    cfg.TEST.VALIDATION_LOSS = True

    # Loggers besides metrics.json and TensorBoard, which receive the scalars, the config and report.html: some of
    # "wandb" (Weights & Biases), "mlflow" and "clearml", whose packages must be installed.
    cfg.OUTPUT = CfgNode()
    cfg.OUTPUT.LOGGERS = []
