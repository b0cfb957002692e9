cd "$WORKSPACE_DIR"
export PYTHONPATH=/agentscope_runtime
exec python -m uvicorn app:app --host 0.0.0.0 --port 8000
