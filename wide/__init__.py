"""The wide table: items vote for items, fitted in closed form, with a weight beside a model. Without MindSpore."""

from wide.table import ORDER, ORDERLESS, WideSettings, WideTable, choose

__all__ = ["ORDER", "ORDERLESS", "WideSettings", "WideTable", "choose"]
