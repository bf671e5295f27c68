"""The paper's model: 39.3 AP on COCO minival (Table 3)."""

from .common.data import dataloader
from .common.model import model
from .common.optim import SGD as optimizer
from .common.schedule import lr_multiplier_1x as lr_multiplier
from .common.train import train

train.init_checkpoint = "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
train.allow_pickle = True  # the model zoo's
