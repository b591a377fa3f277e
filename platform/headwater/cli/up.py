from headwater.cli.options import ProjectOption
def up(project: ProjectOption = None) -> None:
    """x up"""
