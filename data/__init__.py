"""Get and prepare data: a module per source; prepare.py writes what load_csv_dataset.py reads."""
