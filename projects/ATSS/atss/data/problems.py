"""The kinds of problems of a dataset, with messages for its owner."""

import reprlib
from typing import NamedTuple

from ..errors import InputError, printable

# Shortens values in messages, which can be anything that a json file can hold.
SHORT = reprlib.Repr()
SHORT.maxstring = SHORT.maxother = SHORT.maxlong = 100
# Maximum number of examples of each problem.
MAX_EXAMPLES = 5

_USELESS = "training skips them, evaluation counts them: correct or remove them"
_REPAIR = "correct the entry, or remove it"
_NUMBERED = "images and classes are numbered where their ids are not numbers; results have the ids of the file"
# Kind of problem -> severity, what is counted, and what to do about it. Training refuses datasets with errors; warnings
# probably cost accuracy; notes may be intended.
KINDS = {
    # Files and entries.
    "dataset that cannot be read": ("error", "datasets", "see above"),
    "no dataset": ("error", "files", "docs/own_data.md describes the formats"),
    "malformed images": ("error", "images", _REPAIR),
    "images with an id that another has": ("error", "images", _REPAIR),
    "images outside of their folder": ("error", "images", _REPAIR),
    "malformed categories": ("error", "classes", _REPAIR),
    "categories with an id that another has": ("error", "classes", _REPAIR),
    "malformed annotations": ("error", "annotations", _REPAIR),
    "ids of images that are no integers": ("note", "ids", _NUMBERED),
    "ids of categories that are no integers": ("note", "ids", _NUMBERED),
    "ids of annotations that are texts": ("note", "ids", "they are numbered anew: training and AP do not use them"),
    "annotations without an id of their own": (
        "warning", "annotations", "they are numbered anew; do files that were merged contain objects twice?",
    ),
    "annotations with a segmentation alone": ("note", "annotations", "the box around it is used"),
    "file names with backslashes": ("note", "images", "backslashes are taken as slashes"),
    "images found by their names": (
        "warning", "images", "their paths lead nowhere, and their folder has one such image: are these the right ones?",
    ),
    "images that cannot be told apart": ("error", "images", "correct their paths, which start from the image folder"),
    "folders found by their names": ("note", "folders", "their paths lead nowhere; the end of the path does"),
    "annotations of no image": ("error", "annotations", _REPAIR),
    "annotations of unknown classes": ("error", "annotations", _REPAIR),
    # YOLO and Pascal VOC.
    "malformed lines": (
        "error", "lines",
        "correct them: class, then centre, width and height as fractions of the image's size, or a polygon",
    ),
    "no labels at all": ("error", "folders", "put labels/ beside images/, with a text file of the same name per image"),
    "label files without an image": ("warning", "files", "add the images, or remove the files"),
    "xml files that cannot be used": ("error", "files", "correct or remove them"),
    "how pixels are counted": ("note", "datasets", "see docs/own_data.md if that is wrong"),
    # Entries.
    "no split train": ("warning", "datasets", "make one, or name datasets in DATASETS.TRAIN"),
    "no split val or test": ("warning", "datasets", "make one, or name datasets in DATASETS.TEST"),
    "missing images": ("error", "images", "does the image folder fit the annotation file?"),
    "images listed twice": ("warning", "images", "merge their entries"),
    "classes of the same name": ("warning", "classes", "merge them, or give them different names"),
    "classes without annotations": (
        "warning", "classes", "is the class intended? Without annotations it is neither learned nor evaluated",
    ),
    "rare classes": (
        "warning", "classes",
        "DATALOADER.SAMPLER_TRAIN RepeatFactorTrainingSampler shows their images more often, with this threshold; "
        "docs/own_data.md says what to expect",
    ),
    "images without annotations": (
        "note", "images",
        "training skips them; with DATALOADER.FILTER_EMPTY_ANNOTATIONS False it learns from them, too",
    ),
    "boxes without area": ("warning", "annotations", _USELESS),
    "boxes outside of their image": ("warning", "annotations", _USELESS),
    "boxes that extend beyond their image": (
        "warning", "annotations", "training clips them, evaluation does not: clip them in the annotations",
    ),
    "boxes less than a pixel wide or high": (
        "warning", "annotations", "are the coordinates pixels? Nothing can be learned from such boxes",
    ),
    "duplicate annotations": ("warning", "annotations", "remove all but one: a detector cannot match the others"),
    "nothing to learn from": ("error", "datasets", "add annotations, or train on another dataset"),
    "different classes": ("error", "datasets", "give them the same categories"),
    "images in both": (
        "warning", "images", "results on images that were trained on are too good: remove them from one dataset",
    ),
    "images that no entry names": ("note", "images", "they are not used; add entries, even for images without objects"),
    # Image files.
    "images that cannot be read": ("error", "images", "replace them, or remove them and their entries"),
    "images of another size than their entry says": (
        "error", "images",
        "correct width and height in the annotations; boxes that were drawn on another image must be redrawn",
    ),
    "duplicate images": ("warning", "images", "remove the copies; first compare their annotations"),
    "transparent images": ("note", "images", "they are put on a white background"),
    "images of 16 bits": ("note", "images", "their 65,536 grey levels become 256"),
    "CMYK images": ("note", "images", "they become RGB"),
    "grey images": ("note", "images", "they become RGB"),
}  # fmt: skip


def quoted(path):
    """A path in a message: in quotation marks, shortened, without characters that cannot be printed."""
    return SHORT.repr(path).replace(r"\\", "\\")


class Problem(NamedTuple):
    """A problem of a dataset; severity, things and remedy are those of its kind."""

    kind: str  # one of `KINDS`
    severity: str
    count: int  # of `total` things, such as 3 of 205 "images"
    total: int
    things: str
    examples: list  # the first MAX_EXAMPLES, one line each
    remedy: str
    where: str = ""  # name of the dataset or datasets with the problem; "" if not yet known

    def extent(self):
        """Count and total as text, such as "3 of 205 images"."""
        return f"{self.count:,} of {self.total:,} {self.things}"

    def line(self):
        """The whole problem as one line, with one example."""
        return f"{self.where}: {self.kind} ({self.extent()}), such as {self.examples[0]}; {self.remedy}"


def problems_of(kind, found, total, describe=str, where=""):
    """A list with one `Problem` of one of `KINDS`, or an empty list if nothing was found.

    Of `total` things that were checked, those in the sequence `found` have the problem; `describe` returns a text,
    which becomes one line.
    """
    if not len(found):
        return []
    severity, things, remedy = KINDS[kind]
    # Names of files and folders can contain control characters.
    examples = [printable(str(describe(element))) for element in found[:MAX_EXAMPLES]]
    return [Problem(kind, severity, len(found), total, things, examples, remedy, where)]


def located(where, problems):
    """The problems with the name of their dataset."""
    return [problem._replace(where=where) for problem in problems]


def errors_of(problems):
    """The problems for which training refuses a dataset."""
    return [problem for problem in problems if problem.severity == "error"]


def refuse_errors(source, problems):
    """Raise an `InputError` for the first error among the problems of a `Source`, if there are any."""
    errors = errors_of(problems)
    if not errors:
        return
    first, *others = errors
    tool = f"atss check {source.folder or '--config-file ...'}"
    more = f", and {len(others)} more kinds of errors" if others else ""
    raise InputError(
        f"{source.path}: {first.examples[0]} ({first.extent()}{more}); {first.remedy}; `{tool}` lists everything"
    )
