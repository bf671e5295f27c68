from fvcore.common.registry import Registry

ASSIGNER_REGISTRY = Registry("ATSS_ASSIGNER")
ASSIGNER_REGISTRY.__doc__ = "Rules that choose positives, by the name that MODEL.ATSS.ASSIGNER gives."
