"""For sahi (github.com/obss/sahi, sliced inference): importing this adds the model type "atss" to `AutoDetectionModel`.

import atss.sahi
model = AutoDetectionModel.from_pretrained("atss", model_path="model_final.pth", config_path="config.yaml")
"""

import sys

from sahi.auto_model import MODEL_TYPE_TO_MODEL_CLASS_NAME
from sahi.models.base import DetectionModel
from sahi.prediction import ObjectPrediction
from sahi.utils.compatibility import fix_full_shape_list, fix_shift_amount_list

from .predictor import Predictor


class ATSSDetectionModel(DetectionModel):
    """A trained model for sahi. `config_path` and `model_path` are the arguments of `Predictor.load`.

    `model` may be a `Predictor` instead. An `image_size` takes the place of INPUT.MIN_SIZE_TEST and MAX_SIZE_TEST.
    """

    def load_model(self):
        opts = ["MODEL.DEVICE", self.device]
        if self.image_size is not None:
            opts += ["INPUT.MIN_SIZE_TEST", self.image_size, "INPUT.MAX_SIZE_TEST", self.image_size]
        self.set_model(Predictor.load(self.config_path, self.model_path, opts))

    def set_model(self, model, **kwargs):
        self.model = model
        if not self.category_mapping:
            self.category_mapping = {str(number): name for number, name in enumerate(model.class_names)}

    def perform_inference(self, image):
        self.perform_batch_inference([image])

    def perform_batch_inference(self, images):
        """Detect in a list of images, (H, W, 3) uint8 in RGB order."""
        images = [image[:, :, ::-1] for image in images]
        self._original_predictions = self.model.predict(images, self.confidence_threshold, batch_size=len(images))

    def _create_object_prediction_list_from_original_predictions(self, shift_amount_list=None, full_shape_list=None):
        found = self._original_predictions
        shifts = fix_shift_amount_list(shift_amount_list or [[0, 0]] * len(found))
        shapes = fix_full_shape_list(full_shape_list) or [None] * len(found)
        self._object_prediction_list_per_image = [
            [
                ObjectPrediction(box, label, self.category_mapping[str(label)], None, score, shift, shape)
                for box, label, score in zip(*(v.tolist() for v in (x.boxes, x.classes, x.scores)), strict=True)
            ]
            for x, shift, shape in zip(found, shifts, shapes, strict=True)
        ]


MODEL_TYPE_TO_MODEL_CLASS_NAME["atss"] = ATSSDetectionModel.__name__
sys.modules["sahi.models.atss"] = sys.modules[__name__]  # where sahi looks for the class
