"""Making manifests: of folders, of other manifests, and of what others have made."""
