"""The MONAI Label app: both bundles as models of an annotation server. Needs the extra ``label``."""
