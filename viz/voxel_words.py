"""temporary"""
def fact_rows(facts, state): return [("a","b")]
