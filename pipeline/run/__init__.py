"""From inputs to a finished run: plan, output folder, job, graph, runners, progress, closing summary."""
