def check_arguments(grid, gt_boxes, ignore_boxes):
    pass
