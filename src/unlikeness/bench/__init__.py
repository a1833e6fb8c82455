"""Every defence against every attacker: defence × attacker × purifier × subject × seed, one JSON a cell.

    unlikeness bench run smoke --output bench
    unlikeness bench report bench

`suites` reads what is crossed, `cells` names each crossing by what decides it, `work` makes what cells share,
`measuring` computes one, `running` and `cluster` compute many, `rows` and `report` show them. Defences,
attackers, purifiers and metrics are found in their registries by name: see `entries`.
"""
