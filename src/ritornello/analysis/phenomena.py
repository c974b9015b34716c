"""What each BLiMP subtask is about: the twelve phenomena of Warstadt et al. 2020, arXiv:1912.00582, table 2.

They are the `linguistics_term` of its files; two subtasks that those file under "s-selection" belong to argument structure in the paper.
"""

_SUBTASKS = {
    "anaphor agreement": "anaphor_gender_agreement anaphor_number_agreement",
    "argument structure": "animate_subject_passive animate_subject_trans causative drop_argument inchoative intransitive passive_1 "
    "passive_2 transitive",
    "binding": "principle_A_c_command principle_A_case_1 principle_A_case_2 principle_A_domain_1 principle_A_domain_2 principle_A_domain_3 "
    "principle_A_reconstruction",
    "control and raising": "existential_there_object_raising existential_there_subject_raising expletive_it_object_raising "
    "tough_vs_raising_1 tough_vs_raising_2",
    "determiner-noun agreement": "determiner_noun_agreement_1 determiner_noun_agreement_2 determiner_noun_agreement_irregular_1 "
    "determiner_noun_agreement_irregular_2 determiner_noun_agreement_with_adj_2 determiner_noun_agreement_with_adj_irregular_1 "
    "determiner_noun_agreement_with_adj_irregular_2 determiner_noun_agreement_with_adjective_1",
    "ellipsis": "ellipsis_n_bar_1 ellipsis_n_bar_2",
    "filler-gap dependency": "wh_questions_object_gap wh_questions_subject_gap wh_questions_subject_gap_long_distance wh_vs_that_no_gap "
    "wh_vs_that_no_gap_long_distance wh_vs_that_with_gap wh_vs_that_with_gap_long_distance",
    "irregular forms": "irregular_past_participle_adjectives irregular_past_participle_verbs",
    "island effects": "adjunct_island complex_NP_island coordinate_structure_constraint_complex_left_branch "
    "coordinate_structure_constraint_object_extraction left_branch_island_echo_question left_branch_island_simple_question "
    "sentential_subject_island wh_island",
    "NPI licensing": "matrix_question_npi_licensor_present npi_present_1 npi_present_2 only_npi_licensor_present only_npi_scope "
    "sentential_negation_npi_licensor_present sentential_negation_npi_scope",
    "quantifiers": "existential_there_quantifiers_1 existential_there_quantifiers_2 superlative_quantifiers_1 superlative_quantifiers_2",
    "subject-verb agreement": "distractor_agreement_relational_noun distractor_agreement_relative_clause "
    "irregular_plural_subject_verb_agreement_1 irregular_plural_subject_verb_agreement_2 regular_plural_subject_verb_agreement_1 "
    "regular_plural_subject_verb_agreement_2",
}
PHENOMENA: dict[str, str] = {subtask: phenomenon for phenomenon, names in _SUBTASKS.items() for subtask in names.split()}


def phenomenon(suite: str, task: str) -> str | None:
    """The phenomenon of a subtask of BLiMP, whichever set of its pairs was scored; None for other suites."""
    return PHENOMENA.get(task) if suite.startswith("blimp") else None
