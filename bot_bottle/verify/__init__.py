"""What ``bot-bottle verify`` runs: attacks from inside a real bottle, judged by what arrived outside."""
