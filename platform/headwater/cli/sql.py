from headwater.cli.options import ProjectOption
def sql(project: ProjectOption = None) -> None:
    """x sql"""
