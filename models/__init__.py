"""The occupancy networks, in plain PyTorch."""

RECIPE_NAMES = (
    *("fusion_r18", "fusion_r18_10", "fusion_r18_5", "fusion_r50", "fusion_swinb"),
    *("flashocc", "flashocc_pretrained", "flashocc_large_batch"),
    *("distill_few", "distill", "distill_pretrained"),
    *("openoccupancy_r18", "flow_r18", "waymo_d5", "waymo_lidar_d1"),
    *("city_teacher", "city_student"),
)
"""Of ``models.training.recipes``, which is slow to import."""
