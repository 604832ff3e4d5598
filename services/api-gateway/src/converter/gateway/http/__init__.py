"""What any HTTP face needs: connections, bodies, errors and their answers, streams. It knows nothing of jobs."""
