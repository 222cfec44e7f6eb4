"""Pictures of a run as files: photos with boxes and labels, contact sheets, face crops."""
